"""`kumactl inspect meshes --watch`: how it ends when the control plane is busy, hangs, or does not get there."""

import socket
import subprocess
from pathlib import Path

import pytest

from demo.processes import BIN
from tests.fakes.patience import PATIENCE
from tests.kumactl.fake_server import Server
from tests.kumactl.shown.test_terminal import environment, kumactl, server  # noqa: F401

TRANSITION = "/meshes/default/mesh-transitions/default"
FOLLOW = ("inspect", "meshes", "--watch", "default", "--timeout")
STEP = {"type": "MeshTransition", "mesh": "default", "name": "default", "step": "preparing", "followers": 2}


def problem(status: int) -> tuple[int, object]:
    return status, {"title": "Not now", "status": status, "detail": "too much to do"}


@pytest.mark.parametrize("status", [429, 503])
def test_a_control_plane_that_is_busy_is_waited_for(server: Server, tmp_path: Path, status: int) -> None:  # noqa: F811
    server.answers = {**server.answers, TRANSITION: problem(status)}
    process = subprocess.Popen(
        [BIN / "kumactl", *FOLLOW, "30s"], env=environment(tmp_path), stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "the control plane does not answer; waiting for it\n"
    server.answers = {**server.answers, TRANSITION: (200, {**STEP, "step": "complete", "complete": True})}
    assert process.communicate(timeout=PATIENCE)[0] == "complete\n"
    assert process.returncode == 0


def test_what_time_does_not_change_ends_it(server: Server, tmp_path: Path) -> None:  # noqa: F811
    server.answers = {**server.answers, TRANSITION: problem(403)}
    done = kumactl(tmp_path, *FOLLOW, "30s")
    assert (done.returncode, "Not now" in done.stderr) == (1, True)


def test_it_ends_in_time_if_the_change_does_not(server: Server, tmp_path: Path) -> None:  # noqa: F811
    server.answers = {**server.answers, TRANSITION: (200, STEP)}
    done = kumactl(tmp_path, *FOLLOW, "1s")
    assert (done.returncode, done.stdout) == (1, "preparing; 0 of 2 proxies\n")
    assert done.stderr == "Error: the change was not complete within 1 seconds\n"


def test_it_ends_in_time_if_the_control_plane_hangs(server: Server, tmp_path: Path) -> None:  # noqa: F811
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, as a stopped process does
        config = tmp_path / ".kumactl" / "config"
        config.write_text(config.read_text().replace(str(server.port), str(silent.getsockname()[1])))
        done = kumactl(tmp_path, "--api-timeout", "1h", *FOLLOW, "2s")  # which a request of its own could take
    assert (done.returncode, done.stdout) == (1, "the control plane does not answer; waiting for it\n")


def test_a_control_plane_that_does_not_observe_traffic_shows_its_meshes(server: Server, tmp_path: Path) -> None:  # noqa: F811
    """An older one, or that of somebody else."""
    done = kumactl(tmp_path, "inspect", "meshes")
    assert (done.returncode, "default" in done.stdout) == (0, True), done.stderr
    server.answers = {**server.answers, "/observed-traffic": problem(403)}
    assert "Not now" in kumactl(tmp_path, "inspect", "meshes").stderr
