"""The options that all commands have in common stand where the original takes them: anywhere."""

from pathlib import Path

import pytest

from kuma.kumactl import common_options
from tests.kumactl.fake_server import serving
from tests.kumactl.test_transport import KUMA, add, answers, kumactl

OPTIONS = {"--file": True, "--bare": False}


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("get x --file f --bare -o json", "--file f --bare get x -o json"),
        ("get --file=f x", "--file=f get x"),
        ("--file f get x", "--file f get x"),
        ("get x -- --bare", "get x -- --bare"),
        ("get x --file", "--file"),
        ("", ""),
    ],
)
def test_what_comes_first(given: str, read: str) -> None:
    assert common_options.first(OPTIONS, given.split()) == read.split()


def test_common_options_follow_a_command(tmp_path: Path) -> None:
    with serving(answers((200, KUMA))) as server:
        address = f"http://localhost:{server.port}"
        made = kumactl(tmp_path, "config", "control-planes", "add", "--name", "p", "--address", address,
                       "--config-file", "other")  # fmt: skip
        assert (made.returncode, made.stderr) == (0, "")
        done = kumactl(tmp_path, "get", "meshes", "--config-file", "other", "--api-timeout=5s", "--log-level", "info")
    assert done.returncode == 0, done.stderr
    assert f"GET {address}/meshes" in done.stderr
    assert not (tmp_path / ".kumactl").exists()


def test_no_config_follows_a_command(tmp_path: Path) -> None:
    add(tmp_path, "http://localhost:1", "--skip-check")
    assert "url: http://localhost:5681\n" in kumactl(tmp_path, "config", "view", "--no-config").stdout


def test_an_option_without_its_value(tmp_path: Path) -> None:
    done = kumactl(tmp_path, "get", "meshes", "--config-file")
    assert (done.returncode, "Option '--config-file' requires an argument" in done.stderr) == (2, True)
