"""How the commands begin and end, whatever happens."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from demo.mesh import DemoMesh
from demo.processes import BIN, Processes
from kuma.base import command_line
from tests.fakes.patience import PATIENCE


@pytest.mark.parametrize("arguments", [["kuma-cp", "run"], ["kuma-dp", "run"], ["kumactl", "get", "meshes"]])
def test_ctrl_c_while_a_command_is_loading(tmp_path: Path, arguments: list[str]) -> None:
    """Python tells of each module that it has loaded, so the moment is one in the middle."""
    program, *others = arguments
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", BIN / program, *others],
        env={"HOME": str(tmp_path)}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    while not process.stderr.readline().rstrip().endswith(" typer"):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=PATIENCE)
    assert "Traceback" not in rest
    assert process.returncode == 130


def test_no_garbage_is_sought_while_a_command_loads() -> None:
    """Each search would go through all that has been imported by then."""
    program = (
        "import gc; from kuma.app import start; searches = [];"
        "gc.callbacks.append(lambda *_: searches.append(gc.get_freeze_count()));"
        "start._load('kuma.agent.kuma_dp'); print(0 in searches, gc.isenabled(), gc.get_freeze_count() > 0)"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout == "False True True\n"


@pytest.mark.parametrize("module", ["kuma.agent.kuma_dp", "kuma.app.kuma_cp", "kuma.kumactl.main"])
def test_what_only_help_shows_itself_with_is_not_loaded_before(module: str) -> None:
    """It took a sixth of the time in which kuma-dp starts; whoever asks for help gets it as ever."""
    program = (
        f"import sys; from kuma.app import start; command = start._load({module!r});"
        "print([name for name in sys.modules if name.split('.')[0] == 'rich']);"
        "sys.argv = ['command', '--help']; command.main()"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.startswith("[]\n")
    assert "Commands" in found.stdout


def test_no_garbage_is_sought_when_a_command_ends() -> None:
    """The interpreter searches once more; a control plane has let go by then of what was set aside from searches."""
    program = (
        "import atexit, gc, sys, types; from kuma.app import start;"
        "atexit.register(lambda: print(gc.get_freeze_count() > 0));"
        "command = sys.modules['command'] = types.ModuleType('command');"
        "command.main = gc.unfreeze; start._run('command')"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout == "True\n"


def test_a_wrong_setting_is_told_before_a_control_plane_is_loaded(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", BIN / "kuma-cp", "run"],
        env={"HOME": str(tmp_path), "KUMA_API_SERVER_HTTP_PORT": "x"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "kuma.app.configuration.settings_file" in loaded
    assert not {"kuma.app.assembly", "kuma.app.stores", "sqlalchemy", "grpc"} & loaded


def test_a_control_plane_that_is_told_to_end_twice_ends_in_good_order(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes:
        mesh = DemoMesh(tmp_path, processes)
        control_plane = mesh.start_control_plane()
        processes.forget(control_plane)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
            control_plane.send_signal(number)
            time.sleep(0.01)
        assert control_plane.wait(PATIENCE) == 0
        said = processes.tail("kuma-cp", 1000)
        assert "Traceback" not in said
        assert "destroyed" not in said
        assert said.endswith("stopped")


def test_a_control_plane_may_open_as_many_files_as_the_system_lets_it(tmp_path: Path) -> None:
    """The usual 1024 are fewer than its limits of connections and streams: one client could use them up."""
    usual, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(usual, 1024), most))
    try:
        with Processes(tmp_path) as processes:
            control_plane = DemoMesh(tmp_path, processes).start_control_plane()
            assert resource.prlimit(control_plane.pid, resource.RLIMIT_NOFILE) == (most, most)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (usual, most))


def test_an_error_that_nobody_expected_is_one_sentence_without_what_it_quotes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def app() -> None:
        raise RuntimeError("the token is hunter2")

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit) as caught:
        command_line.run(app)
    signal.signal(signal.SIGINT, before)
    assert caught.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith("Error: this is a defect of the program: RuntimeError in test_start.py, line ")
    assert len(said.splitlines()) == 1
    assert "hunter2" not in said
