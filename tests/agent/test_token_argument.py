"""`kuma-dp --dataplane-token`: taken, as the original takes it, and not left where others read it."""

import os
import subprocess
from pathlib import Path

import pytest

from demo.processes import BIN, free_ports
from kuma.agent import token_argument
from kuma.agent.token_source import TokenSource
from kuma.base.errors import Misconfigured
from tests.fakes.patience import PATIENCE

SECRET = "hunter2-hunter2"
DATAPLANE = (
    "{type: Dataplane, mesh: default, name: x, networking: {address: 127.0.0.1, "
    "inbound: [{port: 1, servicePort: 2, tags: {kuma.io/service: x}}]}}"
)


@pytest.mark.parametrize(
    ("arguments", "rest", "token"),
    [
        (["run", "--dataplane-token", "t", "-d", "x"], ["run", "-d", "x"], "t"),
        (["run", "--dataplane-token=t"], ["run"], "t"),
        (["run", "--dataplane-token-file", "f"], ["run", "--dataplane-token-file", "f"], ""),
        (["run"], ["run"], ""),
    ],
)
def test_the_token_among_arguments(arguments: list[str], rest: list[str], token: str) -> None:
    assert token_argument.split(arguments) == (rest, token)


def test_the_file_wins(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from the file\n")
    assert TokenSource.of(tmp_path / "token", "given").token == "from the file"
    assert TokenSource.of(None, " given ").token == "given"
    with pytest.raises(Misconfigured, match="--dataplane-token-file is needed"):
        TokenSource.of(None, " ")


def start(directory: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """A kuma-dp that waits for a control plane."""
    (port,) = free_ports(1)
    return subprocess.Popen(
        [BIN / "kuma-dp", "run", f"--cp-address=https://localhost:{port}", f"--dataplane={DATAPLANE}", *arguments],
        cwd=directory, env={**os.environ, "KUMA_READINESS_PORT": "0", **environment}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("arguments", [["--dataplane-token", SECRET], [f"--dataplane-token={SECRET}"]])
def test_it_does_not_stay_in_the_list_of_processes(tmp_path: Path, arguments: list[str]) -> None:
    process = start(tmp_path, *arguments)
    assert process.stderr is not None
    warned, waiting = process.stderr.readline(), process.stderr.readline()
    command = Path(f"/proc/{process.pid}/cmdline").read_text()
    variables = Path(f"/proc/{process.pid}/environ").read_text()
    process.terminate()
    process.communicate(timeout=PATIENCE)
    assert "was in the list of processes for a moment" in warned
    assert "no bootstrap yet" in waiting  # so it has read the token
    assert "--cp-address" in command
    assert SECRET not in command + variables


def test_a_variable_will_do_without_a_warning(tmp_path: Path) -> None:
    process = start(tmp_path, KUMA_DATAPLANE_RUNTIME_TOKEN=SECRET)
    assert process.stderr is not None
    first = process.stderr.readline()
    process.terminate()
    process.communicate(timeout=PATIENCE)
    assert "no bootstrap yet" in first
