"""Proxies and control planes that come, go, and are killed."""

import asyncio
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from demo.mesh import DemoMesh
from demo.processes import Processes
from demo.processes import until as until_sync
from demo.resources import BACKEND, WEB
from demo.traffic import Traffic
from kuma.resources import kinds
from tests.fakes.control_plane import ALLOW_ALL, MTLS, Running
from tests.fakes.patience import PATIENCE
from tests.integration.sidecars import BETWEEN_CALLS, Sidecar, Sidecars, children_of, more, traffic, until

ROOT = Path(__file__).resolve().parents[3]
KEY = kinds.DATAPLANE.key("backend-01", "default")


@pytest.fixture
def declared() -> tuple[str, ...]:
    return MTLS, ALLOW_ALL


@pytest.fixture
def xds_server() -> dict[str, Any]:
    return {"dataplane_deregistration_delay": "1s"}


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def says(sidecar: Sidecar, text: str) -> bool:
    return text in sidecar.log.read_text()


async def gone(pid: int) -> bool:
    return not is_alive(pid)


def commands(sidecar: Sidecar) -> str:
    pids = [sidecar.running.pid, *children_of(sidecar.running.pid)]
    return "".join(Path(f"/proc/{pid}/cmdline").read_text() for pid in pids)


@pytest.mark.usefixtures("hangups")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
async def test_sigterm_lets_requests_end_and_exits_with_envoys_status(
    number: signal.Signals, cp: Running, mesh: Sidecars
) -> None:
    web, backend = await mesh.pair()
    await until("kuma-dp says that the proxy runs", lambda: says(backend, "the proxy runs"))
    assert "[warning]" not in backend.log.read_text(), "Envoy complains of its configuration"
    backend.delay = 1.0
    known = len(backend.headers)
    under_way = asyncio.gather(*(web.call("backend") for _ in range(3)))
    await more(backend.headers, known + 3 - len(backend.headers))
    backend.running.send_signal(number)
    assert await under_way == [200, 200, 200]
    assert await backend.running.wait() == 0
    await cp.parts.views.until(lambda: "backend-01" not in cp.parts.views.view("default").dataplanes)


async def test_kill_9_leaves_no_envoy_and_shows_the_proxy_offline(cp: Running, mesh: Sidecars) -> None:
    backend = await mesh.start("backend")
    envoy = backend.envoy
    backend.running.kill()
    await until("Envoy has ended", lambda: gone(envoy))
    insight = kinds.DATAPLANE_INSIGHT.key(KEY.name, KEY.mesh)

    async def offline() -> bool:
        found = await cp.parts.manager.find(insight)
        return found is None or not found.spec.online

    await until("the proxy is shown offline", offline)


async def test_when_envoy_dies_kuma_dp_says_how_and_that_it_does_not_go_on(cp: Running, mesh: Sidecars) -> None:
    mesh.options = ("--log-format=json", "--envoy-log-level=info")
    backend = await mesh.start("backend")
    os.kill(backend.envoy, signal.SIGKILL)
    assert await backend.running.wait() == 128 + signal.SIGKILL
    await cp.parts.views.until(lambda: "backend-01" not in cp.parts.views.view("default").dataplanes)
    lines = [json.loads(line) for line in backend.log.read_text().splitlines()]
    assert all({"event", "level", "timestamp"} <= line.keys() for line in lines)
    assert any(line.get("logger", "").startswith("envoy") for line in lines), "Envoy's are as ours"
    ended = {"event": "Envoy has ended, and kuma-dp has not ended it", "level": "error", "status": 128 + signal.SIGKILL}
    assert any(ended.items() <= line.items() for line in lines)


async def test_the_token_shows_in_no_command_line(mesh: Sidecars) -> None:
    backend = await mesh.start("backend")
    assert "kuma-dp" in commands(backend)
    assert "eyJ" not in commands(backend)


async def test_a_restarted_proxy_gets_another_certificate(cp: Running, mesh: Sidecars) -> None:
    backend = await mesh.start("backend")
    (proxy,) = cp.parts.proxies
    assert proxy.keeper.identity is not None
    first = proxy.keeper.identity.serial
    backend.running.send_signal(signal.SIGTERM)
    await backend.running.wait()
    await mesh.run(backend)
    (proxy,) = cp.parts.proxies
    assert proxy.keeper.identity is not None
    assert proxy.keeper.identity.serial != first


async def test_rotation_under_traffic_fails_no_request(cp: Running, mesh: Sidecars) -> None:
    web, backend = await mesh.pair()
    # The next one comes two seconds before the end: a machine that stands still for a moment fails no request.
    short = MTLS.replace("type: builtin", "type: builtin, dpCert: {rotation: {expiration: 10s}}")
    async with traffic(lambda: web.call("backend")) as answers:
        await cp.apply(short)

        async def rotated() -> Any:
            insight = await cp.parts.manager.find(kinds.DATAPLANE_INSIGHT.key(KEY.name, KEY.mesh))
            return insight and insight.spec.mtls and insight.spec.mtls.certificate_regenerations > 3

        await until("two rotations, after the leaf that the change brought", rotated)
        await more(answers)
    assert set(answers) == {200}
    assert backend.headers


def started(mesh: DemoMesh, declared: str, backend: str = BACKEND) -> subprocess.Popen[bytes]:
    """Start all of a mesh as processes of its own, and return its control plane once `web` reaches `backend`."""
    control_plane = mesh.start_control_plane()
    mesh.start_workloads()
    mesh.write_dataplanes(backend, WEB)
    for name, text in (("mesh.yaml", declared), ("allow-all.yaml", ALLOW_ALL)):
        mesh.write(name, text)
        mesh.kumactl("apply", "-f", name)
    for service in ("backend", "web"):
        mesh.token(service)
        mesh.start_proxy(service)
    until_sync("web reaches backend", lambda: mesh.call()[0] == 200, mesh.processes)
    return control_plane


def test_a_killed_control_plane_is_not_missed_and_takes_over_again(tmp_path: Path) -> None:
    """While it is away calls go on; when it is back, proxies return by themselves and changes reach them."""
    with Processes(tmp_path) as processes:
        mesh = DemoMesh(tmp_path, processes)
        control_plane = started(mesh, MTLS)
        for _ in range(2):
            processes.forget(control_plane)
            control_plane.kill()
            control_plane.wait()
            end = time.monotonic() + 1
            while time.monotonic() < end:
                assert mesh.call()[0] == 200
            control_plane = mesh.start_control_plane()
            assert mesh.call()[0] == 200
        until_sync(
            "both proxies are back", lambda: mesh.kumactl("inspect", "dataplanes").count("Online") == 2, processes
        )
        mesh.kumactl("delete", "traffic-permission", "allow-all")
        until_sync("the call is refused", lambda: mesh.call()[0] == 403, processes)


def test_the_demo_does_what_it_claims() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "demo"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Every step had the outcome it claims" in done.stdout
    loads = re.findall(r"✔ ([\d,]+) requests, ([\d,]+) new TLS handshakes, none failed", done.stdout)
    assert len(loads) == 2, done.stdout


@pytest.mark.parametrize("seconds", [0.5, 4.0])
def test_the_demo_can_be_stopped_at_any_moment(seconds: float) -> None:
    demo = subprocess.Popen(
        [sys.executable, "-m", "demo"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert demo.stdout is not None and demo.stdout.readline()
    time.sleep(seconds)
    started = _descendants(demo.pid)
    demo.send_signal(signal.SIGINT)
    _, errors = demo.communicate(timeout=PATIENCE)
    assert demo.returncode == 130
    assert b"Traceback" not in errors
    assert not [pid for pid in started if is_alive(pid)]


def _descendants(pid: int) -> list[int]:
    found = children_of(pid)
    return found + [below for child in found for below in _descendants(child)]


def mesh_with(authority: str, mode: str = "STRICT") -> str:
    backend = f"{{name: {authority}, type: builtin, mode: {mode}}}"
    return f"{{type: Mesh, name: default, mtls: {{enabledBackend: {authority}, backends: [{backend}]}}}}"


def test_a_control_plane_killed_inside_a_change_and_stopped_while_it_resumes(tmp_path: Path) -> None:
    """Whoever takes over goes on from the stored position; no request fails, each being a new TLS handshake."""
    changes = [
        mesh_with("ca-1"), mesh_with("ca-2"), mesh_with("ca-2", "PERMISSIVE"), "{type: Mesh, name: default}",
        mesh_with("ca-3"),
    ]  # fmt: skip
    with Processes(tmp_path) as processes:
        mesh = DemoMesh(tmp_path, processes)
        backend = BACKEND.replace("kuma.io/protocol: http", "kuma.io/protocol: tcp")
        control_plane = started(mesh, mesh_with("ca-0"), backend)
        load = Traffic(mesh.web_out, threads=1, pause=BETWEEN_CALLS)
        try:
            for text, delay in zip(changes, random.Random(5).choices(range(0, 60, 5), k=len(changes)), strict=True):
                mesh.write("mesh.yaml", text)
                mesh.kumactl("apply", "-f", "mesh.yaml")
                for pause, how in ((delay / 1000, signal.SIGKILL), (delay / 100, signal.SIGTERM)):
                    time.sleep(pause)
                    processes.forget(control_plane)
                    control_plane.send_signal(how)
                    control_plane.wait()
                    control_plane = mesh.start_control_plane()
                mesh.kumactl("inspect", "meshes", "--watch", "default", "--timeout", "110s")
            until_sync(
                "certificates of the last authority",
                lambda: mesh.insight("backend-01").get("issuedBackend") == "ca-3",
                processes,
            )
        finally:
            load.stop()
        assert set(load.answers) == {"200"}, load.answers
