"""The systemd units hold, are hardened, and are told when a program is ready and when it ends."""

import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.mesh import DemoMesh, Ports, get
from demo.processes import BIN, PATIENCE, Processes, until
from kuma.base.system import service_manager

UNITS = Path(__file__).parents[2] / "deploy" / "systemd"
INSTANCES = {"kuma-cp.service": "kuma-cp.service", "kuma-dp@.service": "kuma-dp@backend.service"}
"""Each unit, and what it is called when it runs."""
MOST_EXPOSED = "20"
"""In tenths, of `systemd-analyze security`: 10.0 is a unit that nothing is taken from."""


@pytest.fixture(params=INSTANCES)
def unit(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A unit whose programs are where they are here."""
    found = tmp_path / INSTANCES[request.param]
    found.write_text((UNITS / request.param).read_text().replace("/opt/kuma/bin", str(BIN)))
    return found


def analyze(*arguments: str | Path) -> str:
    program = shutil.which("systemd-analyze")
    assert program is not None, "systemd-analyze is missing: make packages"
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_units_hold_and_leave_little_to_a_program_that_is_taken_over(unit: Path) -> None:
    assert "Unknown" not in analyze("verify", unit)
    analyze("security", "--offline=true", "--no-pager", f"--threshold={MOST_EXPOSED}", unit)


@pytest.fixture
def told(tmp_path: Path) -> Iterator[socket.socket]:
    """Where a service manager listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(PATIENCE)
        yield listening


def test_programs_say_when_they_are_ready_and_when_they_end(
    told: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(told.getsockname()))
    with Processes(tmp_path) as processes:
        mesh = DemoMesh(tmp_path, processes, Ports.free())
        control_plane = mesh.start_control_plane()
        assert told.recv(100).decode() == service_manager.READY
        mesh.write_dataplanes()
        mesh.token("backend")
        proxy = mesh.start_proxy("backend")
        assert told.recv(100).decode() == service_manager.READY
        for program in (proxy, control_plane):
            processes.stop(program, PATIENCE)
            assert told.recv(100).decode() == service_manager.STOPPING


def test_a_reload_takes_up_the_log_names_what_has_to_wait_and_refuses_what_is_wrong(
    told: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(told.getsockname()))
    file, log = tmp_path / "kuma-cp.yaml", tmp_path / "kuma-cp.log"
    file.write_text("general: {logLevel: info}")
    with Processes(tmp_path) as processes:
        mesh = DemoMesh(tmp_path, processes, Ports.free())
        command: list[str | Path] = [BIN / "kuma-cp", "run", "--config-file", file]
        control_plane = processes.start("kuma-cp", command, mesh.environment)
        assert told.recv(100).decode() == service_manager.READY
        file.write_text("{general: {logFormat: json}, xdsServer: {transitionAbsence: 20s}}")
        control_plane.send_signal(signal.SIGHUP)
        until("it has read the file again", lambda: "the settings have been read again" in log.read_text(), processes)
        waiting = next(line for line in log.read_text().splitlines() if "at the next start only" in line)
        assert json.loads(waiting)["settings"] == ["xdsServer.transitionAbsence"]
        file.write_text("general: {logLevel: loud}")
        control_plane.send_signal(signal.SIGHUP)
        until("it refuses the file", lambda: "the settings are not taken up" in log.read_text(), processes)
        assert "logLevel" in log.read_text().splitlines()[-1]
        assert get(f"http://127.0.0.1:{mesh.ports.diagnostics}/ready")[0] == 200
        processes.stop(control_plane, PATIENCE)
        assert told.recv(100).decode() == service_manager.STOPPING


def test_names_of_the_abstract_namespace_and_nobody_who_listens(
    told: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    service_manager.tell(service_manager.READY)
    name = f"kuma-test-{os.getpid()}"
    monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
    service_manager.tell(service_manager.READY)  # nobody is there: that is only logged
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0{name}")
        service_manager.tell(service_manager.STOPPING)
        assert listening.recv(100).decode() == service_manager.STOPPING
