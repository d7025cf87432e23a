"""The demo fails when it should, and depends on nothing of the user's surroundings."""

from __future__ import annotations

import http.server
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from demo import mesh, steps, traffic
from demo.mesh import Unanswered
from demo.processes import Failed, Processes, free_ports, temporary_home
from demo.traffic import Traffic
from tests.fakes.patience import PATIENCE

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("answers", "handshakes", "reason"),
    [
        ({"200": 1000}, 1, "not every request had a handshake of its own"),
        ({"200": 10}, 10, "too few requests"),
        ({"200": 1000, "TimeoutError": 1}, 1000, "requests failed: 1,001 requests, 1,000 new TLS handshakes, 1 failed"),
        ({}, 0, "too few requests"),
    ],
)
def test_a_load_that_shows_nothing_fails(answers: dict[str, int], handshakes: int, reason: str) -> None:
    with pytest.raises(Failed, match=reason):
        traffic.judge(answers, handshakes)


def test_a_load_that_shows_something() -> None:
    assert traffic.judge({"200": 1000}, 998) == "1,000 requests, 998 new TLS handshakes, none failed"


def test_whatever_goes_wrong_with_a_request_is_counted() -> None:
    (port,) = free_ports(1)
    load = Traffic(port, threads=1)
    while load.answers.total() < 3:
        time.sleep(0.01)
    load.stop()
    assert set(load.answers) == {"ConnectionRefusedError"}
    assert load.failed == load.answers.total()


def test_no_answer_is_a_failure_of_the_demo_and_no_traceback() -> None:
    (port,) = free_ports(1)
    with pytest.raises(Unanswered, match="Connection refused"):
        mesh.get(f"http://127.0.0.1:{port}/")
    assert issubclass(Unanswered, Failed)


def test_the_users_proxy_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    (nobody,) = free_ports(1)
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{nobody}")
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        assert mesh.get(f"http://127.0.0.1:{server.server_port}/")[0] == 501
        thread.join()


def test_settings_of_another_control_plane_are_not_inherited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUMA_STORE_TYPE", "postgres")
    with Processes(tmp_path) as processes:
        process = processes.start("env", ["/usr/bin/env"], {"KUMA_GENERAL_WORK_DIR": "here"})
        process.wait(PATIENCE)
        said = processes.tail("env", 1000).splitlines()
        processes.forget(process)
    assert [line for line in said if line.startswith("KUMA_")] == ["KUMA_GENERAL_WORK_DIR=here"]


def test_what_a_log_holds_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    steps.failure(Failed("kuma-cp ended:\n[/nothing] ['a'] [red]"))
    assert "[/nothing] ['a'] [red]" in capsys.readouterr().out


def test_the_directory_is_gone_at_the_end() -> None:
    with pytest.raises(KeyError), temporary_home("kuma-test-") as home:
        raise KeyError
    assert not home.exists()


@pytest.mark.usefixtures("hangups")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGHUP, 129), (signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_nothing_is_left_behind_however_it_is_ended(tmp_path: Path, number: signal.Signals, status: int) -> None:
    demo = subprocess.Popen(
        [sys.executable, "-m", "demo"], cwd=ROOT, env={**os.environ, "TMPDIR": str(tmp_path)},
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    while not list(tmp_path.glob("kuma-demo-*/kuma-cp.log")):
        assert demo.poll() is None
        time.sleep(0.05)
    time.sleep(0.3)
    demo.send_signal(number)
    _, errors = demo.communicate(timeout=PATIENCE)
    assert (demo.returncode, errors) == (status, b"")
    assert not list(tmp_path.glob("kuma-demo-*"))


def test_ctrl_c_while_it_is_loading() -> None:
    seen: Counter[int] = Counter()
    for module in ("signal", "demo.processes", "rich"):
        demo = subprocess.Popen(
            [sys.executable, "-X", "importtime", "-m", "demo"], cwd=ROOT,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert demo.stderr is not None
        while not demo.stderr.readline().rstrip().endswith(f" {module}"):
            assert demo.poll() is None
        assert demo.stderr.readline()  # of what is loaded after it: the lines between have been run
        demo.send_signal(signal.SIGINT)
        _, rest = demo.communicate(timeout=PATIENCE)
        assert "Traceback" not in rest
        seen[demo.returncode] += 1
    assert seen == {130: 3}
