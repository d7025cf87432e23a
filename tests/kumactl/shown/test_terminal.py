"""What kumactl is to a terminal, a pipe, a shell and a script: colour, completion, exit statuses, --watch."""

import json
import os
import pty
import re
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import kuma
from demo.processes import BIN
from tests.fakes.patience import PATIENCE
from tests.kumactl.fake_server import Server, serving

ESCAPE = "\x1b["
INDEX = {"product": "Kuma", "version": f"{kuma.__version__}-preview"}
NEW_YEAR = "2026-01-01T00:00:00Z"
MESH = {"type": "Mesh", "name": "default", "creationTime": NEW_YEAR, "modificationTime": NEW_YEAR}


def mesh_list(*names: str) -> tuple[int, object]:
    return 200, {"total": len(names), "items": [{**MESH, "name": name} for name in names], "next": None}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving({"/": (200, INDEX), "/meshes": mesh_list("default")}) as found:
        address = f"http://localhost:{found.port}"
        (tmp_path / ".kumactl").mkdir()
        (tmp_path / ".kumactl" / "config").write_text(
            f"{{controlPlanes: [{{name: l, coordinates: {{apiServer: {{url: '{address}'}}}}}}], "
            "contexts: [{name: l, controlPlane: l}], currentContext: l}"
        )
        yield found


def environment(home: Path, **more: str) -> Mapping[str, str]:
    plain = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    return {**plain, "HOME": str(home), "TERM": "xterm-256color", **more}


def kumactl(home: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BIN / "kumactl", *arguments], env=environment(home, **more), capture_output=True, text=True, timeout=PATIENCE
    )


FORCED = [{"FORCE_COLOR": "1"}, {"GITHUB_ACTIONS": "true"}, {"PY_COLORS": "1"}, {"TTY_COMPATIBLE": "1"}]


@pytest.mark.parametrize("forced", FORCED, ids=lambda forced: next(iter(forced)))
def test_a_pipe_is_never_coloured(server: Server, tmp_path: Path, forced: dict[str, str]) -> None:
    for line in ("--help", "get --help", "get", "get --nonsense", "get meshes", "delete x y"):
        done = kumactl(tmp_path, *line.split(), **forced)
        assert ESCAPE not in done.stdout + done.stderr


def test_a_terminal_is_coloured(tmp_path: Path) -> None:
    assert ESCAPE in on_a_terminal(tmp_path, "--help")


def test_people_see_the_mode_of_a_mesh_and_scripts_the_columns_that_they_know(server: Server, tmp_path: Path) -> None:
    assert " MODE " in on_a_terminal(tmp_path, "get", "meshes")
    assert " MODE " not in kumactl(tmp_path, "get", "meshes").stdout


def test_tables_fit_a_terminal_and_programs_get_the_originals_columns(server: Server, tmp_path: Path) -> None:
    networking = {"address": "10.0.0.1", "inbound": [{"port": 80, "tags": {"kuma.io/service": "s" * 100}}]}
    found = {"type": "DataplaneOverview", "mesh": "default", "name": "web-01", "dataplane": {"networking": networking}}
    overviews = (200, {"total": 1, "items": [found], "next": None})
    server.answers = {**server.answers, "/meshes/default/dataplanes+insights": overviews}
    shown = on_a_terminal(tmp_path, "inspect", "dataplanes")
    assert f"{ESCAPE}31mOffline" in shown
    assert all(len(line) <= 80 for line in re.sub(r"\x1b\[\d*m", "", shown).splitlines())
    piped = kumactl(tmp_path, "inspect", "dataplanes").stdout
    assert piped.startswith("MESH      NAME     TAGS")
    assert piped.splitlines()[0].endswith("DEPENDENCIES VERSIONS   NOTES")
    assert "SUPPORTED CERT BACKENDS" in on_a_terminal(tmp_path, "inspect", "dataplanes", "-o", "wide")
    assert ESCAPE not in on_a_terminal(tmp_path, "inspect", "dataplanes", NO_COLOR="1")


@pytest.mark.parametrize(
    ("typed", "asked"),
    [
        ("dp", "/meshes/default/dataplanes+insights"),
        ("dp web-01", "/meshes/default/dataplanes/web-01/policies"),
        ("mesh", "/meshes"),
        ("service", "/meshes/default/service-insights"),
        ("tp all", "/meshes/default/traffic-permissions/all/dataplanes"),
        ("mtp all", "/meshes/default/meshtrafficpermissions/all/dataplanes"),
    ],
)
def test_what_inspect_shows_has_the_names_that_get_knows(
    server: Server, tmp_path: Path, typed: str, asked: str
) -> None:
    kumactl(tmp_path, "inspect", *typed.split())
    assert asked in [path.partition("?")[0] for path, _ in server.asked]


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("gte meshes", "Did you mean 'get'"),
        ("inspekt", "Did you mean 'inspect'"),
        ("generate signing-kye", "Did you mean 'signing-key'"),
        ("get meshs", "did you mean meshes?"),
        ("get trafic-permission", "did you mean traffic-permission?"),
        ("help nonsense", "there is no command kumactl nonsense"),
        ("config control-planes add --name x --address localhost:1", "Did you mean http://localhost:1?"),
    ],
)
def test_a_slip_is_answered_with_what_was_meant(tmp_path: Path, typed: str, said: str) -> None:
    done = kumactl(tmp_path, *typed.split(), COLUMNS="200")
    assert done.returncode != 0
    assert said in done.stderr


def test_help_explains_commands(tmp_path: Path) -> None:
    for words in ("", "get", "config control-planes add"):
        done = kumactl(tmp_path, "help", *words.split())
        assert (done.returncode, done.stderr) == (0, "")
        assert f"Usage: {' '.join(['kumactl', *words.split()])}" in done.stdout


def on_a_terminal(home: Path, *arguments: str, **more: str) -> str:
    """What a terminal is sent by a command that succeeds."""
    controller, terminal = pty.openpty()
    with subprocess.Popen([BIN / "kumactl", *arguments], env=environment(home, **more), stdout=terminal) as process:
        os.close(terminal)
        shown = b""
        while True:
            try:
                shown += (piece := os.read(controller, 65536))
            except OSError:  # nobody writes any more
                break
            if not piece:
                break
        assert process.wait(timeout=PATIENCE) == 0
    os.close(controller)
    return shown.decode()


ASKED = {
    "bash": """
        source ./script
        COMP_WORDS=(TYPED 'BEGUN'); COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        _kumactl_completion kumactl
        printf '%s\n' "${COMPREPLY[@]}" """,
    "zsh": """
        mkdir -p functions; cp script functions/_kumactl; fpath=($PWD/functions $fpath); autoload -Uz _kumactl
        _arguments() { print -r -- "$@" | grep -oE '[("]"?[a-z-]+"' | tr -d '("' }
        _files() { print -l 'BEGUN'*(N) }
        words=(TYPED 'BEGUN'); CURRENT=$#words
        _kumactl""",
    "fish": """
        source ./script
        complete -C 'TYPED BEGUN' | cut -f1""",
}
"""What each shell does at a TAB: at the first one, in zsh, where the script is found in `fpath`."""


@pytest.mark.parametrize("shell", ASKED)
@pytest.mark.parametrize(
    ("words", "begun", "offered"),
    [
        ("kumactl", "comple", {"completion"}),
        ("kumactl", "ge", {"get", "generate"}),
        ("kumactl get", "meshe", {"meshes", "meshexternalservice", "meshexternalservices"}),
        ("kumactl completion", "z", {"zsh"}),
        ("kumactl apply -f", "some-f", {"some-file.yaml"}),
    ],
)
def test_a_tab_completes(tmp_path: Path, shell: str, words: str, begun: str, offered: set[str]) -> None:
    """Commands, kinds, and names of files. Needs the shells: make packages."""
    done = kumactl(tmp_path, "completion", shell)
    assert (done.returncode, done.stderr) == (0, "")
    (tmp_path / "script").write_text(done.stdout)
    (tmp_path / "some-file.yaml").touch()
    path = {"PATH": f"{BIN}:{os.environ['PATH']}"}
    text = ASKED[shell].replace("TYPED", words).replace("BEGUN", begun)
    typed = subprocess.run(
        [shell, "-c", text], cwd=tmp_path, env=environment(tmp_path, **path),
        capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    found = set(typed.stdout.split())
    if shell == "bash" and not found:  # which then completes names of files by itself
        assert "-o default" in done.stdout
        found = {one.name for one in tmp_path.glob(f"{begun}*")}
    assert found == offered, typed.stderr


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("kumactl ge", {"get", "generate"}),
        ("kumactl get tra", {"traffic-permission", "traffic-permissions", "traffic-route", "traffic-routes",
                             "traffic-log", "traffic-logs", "traffic-trace", "traffic-traces"}),
        ("kumactl inspect zone", {"zones", "zone-ingresses", "zoneegresses"}),
        ("kumactl completion ", {"bash", "zsh", "fish"}),
    ],
)  # fmt: skip
def test_what_is_completed(tmp_path: Path, words: str, offered: set[str]) -> None:
    asked = {"_KUMACTL_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    assert set(kumactl(tmp_path, **asked).stdout.split()) == offered


STATUSES = [
    (0, ["get", "meshes"]),
    (0, ["version"]),
    (0, ["get", "--help"]),
    (1, ["get", "mesh", "nobody"]),
    (1, ["delete", "mesh", "nobody"]),
    (1, ["get", "thing"]),
    (1, ["apply", "-f", "missing.yaml"]),
    (2, ["get", "--nonsense"]),
    (2, ["nonsense"]),
    (2, ["get"]),
    (2, ["completion", "csh"]),
    (2, ["get", "meshes", "--size", "0"]),
]


@pytest.mark.parametrize(("status", "arguments"), STATUSES, ids=lambda value: str(value))
def test_exit_statuses(server: Server, tmp_path: Path, status: int, arguments: list[str]) -> None:
    """0: done. 1: it could not be done. 2: it makes no sense as it is written. 130: stopped by Ctrl-C."""
    assert kumactl(tmp_path, *arguments).returncode == status


def test_watching_shows_every_change_until_it_is_stopped(server: Server, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [BIN / "kumactl", "get", "meshes", "--watch"], env=environment(tmp_path), stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    first = [process.stdout.readline() for _ in range(2)]
    server.answers = {**server.answers, "/meshes": mesh_list("default", "other")}
    second = [process.stdout.readline() for _ in range(4)]
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=PATIENCE)
    shown = [line.split()[:1] for line in (*first, *second)]
    assert shown == [["NAME"], ["default"], [], ["NAME"], ["default"], ["other"]]
    assert (rest, process.returncode) == ("", 130)


def test_watching_goes_on_when_a_control_plane_does_not_answer(server: Server, tmp_path: Path) -> None:
    command = [str(BIN / "kumactl"), "inspect", "dataplanes", "--watch", "-o", "json"]
    server.answers = {"/": (200, INDEX), "/meshes/default/dataplanes+insights": (200, {"total": 0, "items": []})}
    process = subprocess.Popen(
        command, env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "{\n"
    server.shutdown()
    server.server_close()
    assert process.stderr.readline().startswith("Warning: cannot reach the control plane")
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 130


@pytest.mark.parametrize("line", ["get meshes", "apply -f mesh.yaml", "delete mesh default", "inspect meshes --watch"])
def test_ctrl_c_ends_whatever_waits(server: Server, tmp_path: Path, line: str) -> None:
    """A control plane that hangs; nothing is printed of what was to come, and no traceback."""
    (tmp_path / "mesh.yaml").write_text("{type: Mesh, name: default}")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        config = tmp_path / ".kumactl" / "config"
        config.write_text(config.read_text().replace(str(server.port), str(silent.getsockname()[1])))
        process = subprocess.Popen(
            [BIN / "kumactl", *line.split()], cwd=tmp_path, env=environment(tmp_path),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        connection, _ = silent.accept()
        with connection:
            assert connection.recv(1)
            process.send_signal(signal.SIGINT)
            printed, said = process.communicate(timeout=PATIENCE)
    assert (process.returncode, printed, said) == (130, "", "")


@pytest.mark.parametrize("line", ["get meshes", "get meshes -o json", "--help", "completion bash"])
def test_a_pipe_that_nobody_reads_is_no_defect(server: Server, tmp_path: Path, line: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as nobody:
        done = subprocess.run(
            [BIN / "kumactl", *line.split()], env=environment(tmp_path), stdout=nobody, stderr=subprocess.PIPE,
            text=True, timeout=PATIENCE,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "")


def test_watching_ends_when_nobody_reads_any_more(server: Server, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [BIN / "kumactl", "get", "meshes", "--watch"], env=environment(tmp_path), stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("NAME")
    process.stdout.close()
    assert process.wait(timeout=PATIENCE) == 1, "although nothing has changed"


@pytest.mark.parametrize("line", ["get meshes", "get meshes -o json", "get meshes --watch", "get --help"])
def test_a_full_disk_is_no_defect(server: Server, tmp_path: Path, line: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [BIN / "kumactl", *line.split()], env=environment(tmp_path), stdout=full, stderr=subprocess.PIPE, text=True,
            timeout=PATIENCE,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "Error: cannot write: No space left on device\n")


def test_versions_in_detail(server: Server, tmp_path: Path) -> None:
    short = kumactl(tmp_path, "version")
    assert short.stdout.splitlines() == [f"Client: Kuma {kuma.__version__}", f"Server: Kuma {INDEX['version']}"]
    for flag in ("-a", "--detailed"):
        client, _, rest = kumactl(tmp_path, "version", flag).stdout.partition("Server: ")
        assert json.loads(rest) == INDEX
        assert json.loads(client.removeprefix("Client: "))["version"] == kuma.__version__
        assert '\n   "version": ' in rest


def test_nothing_that_somebody_else_says_commands_a_terminal(server: Server, tmp_path: Path) -> None:
    """Neither an error, nor what an Envoy shows of itself, nor a name in JSON."""
    evil = "a\x1b[2J\x9b31m\u202eb"
    of_envoy = "/meshes/default/dataplanes/web-01/stats"
    error = {"status": 400, "title": evil, "detail": evil, "invalid_parameters": [{"field": evil, "reason": evil}]}
    server.answers = {**server.answers, of_envoy: (200, f"{evil}: 1\n\ttab\n"), "/meshes/m": (400, error)}
    server.answers = {**server.answers, "/meshes": mesh_list(evil)}
    for line in ("inspect dataplane web-01 --type stats", "get meshes -o json", "get meshes -o yaml", "get mesh m"):
        shown = kumactl(tmp_path, *line.split())
        for text in (shown.stdout, shown.stderr):
            assert all(char.isprintable() or char in "\n\t" for char in text), line
        assert "a" in shown.stdout + shown.stderr, line
    shown = kumactl(tmp_path, "get", "meshes", "-o", "json")
    assert json.loads(shown.stdout)["items"][0]["name"] == evil
