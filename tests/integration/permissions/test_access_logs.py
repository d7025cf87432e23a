"""Access logs that real Envoys write: chosen by TrafficLogs and MeshAccessLogs, in every format that is taken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kuma.resources.models.blocks import log_format
from tests.fakes.control_plane import ALLOW_ALL, MTLS, Running, resource
from tests.integration.sidecars import Sidecars, exchange, until

TRAFFIC_LOG = (
    "{type: TrafficLog, mesh: default, name: all, sources: [{match: {kuma.io/service: '*'}}], "
    "destinations: [{match: {kuma.io/service: '*'}}]}"
)


def mesh_with(path: Path, text: str = "") -> str:
    backend = f"{{name: file, type: file, conf: {{path: {path}}}{text}}}"
    return MTLS.replace("name: default,", f"name: default, logging: {{defaultBackend: file, backends: [{backend}]}},")


@pytest.fixture
def declared() -> tuple[str, ...]:
    return MTLS, ALLOW_ALL


async def test_calls_are_logged(cp: Running, mesh: Sidecars, tmp_path: Path) -> None:
    written, fields, every = tmp_path / "access.log", tmp_path / "fields.log", tmp_path / "every.log"
    web, _ = await mesh.pair()
    await cp.apply(mesh_with(written), TRAFFIC_LOG)
    await mesh.converged()

    async def called(log: Path, words: str) -> str:
        """The lines of a log, once there is one with these words; there is a call for each look."""
        assert await web.call("backend") == 200
        text = log.read_text() if log.exists() else ""
        return text if words in text else ""

    lines = await until("a call is logged", lambda: called(written, '"GET / HTTP/1.1" 200'))
    assert all(line.split('" ')[-1].count('"') for line in lines.splitlines())
    assert '"web" "backend" "127.0.0.1" "127.0.0.1:' in lines

    # A MeshAccessLog wins, and is about inbounds, too. Every operator that is taken is one that Envoy has.
    operators = " ".join(f"%{name}%" for name in sorted(log_format.PLAIN))
    more = "%START_TIME(%Y-%m-%dT%H:%M:%S.%3f %z)% %REQ(X-A?:PATH):10% %RESP(server)% %TRAILER(a)% 100%%"
    await cp.apply(
        "{type: MeshAccessLog, mesh: default, name: all, spec: {targetRef: {kind: Mesh}, "
        "to: [{targetRef: {kind: MeshService, name: backend}, default: {backends: [{type: File, file: {path: "
        f"{fields}, format: {{type: Json, json: [{{key: way, value: '%KUMA_TRAFFIC_DIRECTION%'}}, "
        "{key: to, value: '%KUMA_DESTINATION_SERVICE%'}, {key: code, value: '%RESPONSE_CODE%'}]}}}]}}], "
        f"from: [{{targetRef: {{kind: Mesh}}, default: {{backends: [{{type: File, file: {{path: {every}, format: "
        f"{{type: Plain, plain: '{operators} {more}'}}}}}}]}}}}]}}}}"
    )
    await mesh.converged()
    found = await until("a call is logged in JSON", lambda: called(fields, "OUTBOUND"))
    assert json.loads(found.splitlines()[0]) == {"way": "OUTBOUND", "to": "backend", "code": 200}
    text = await until("a call is logged where it arrives", lambda: called(every, "INBOUND"))
    assert "spiffe://default/web" in text  # who called
    assert text.splitlines()[0].endswith("100%")

    # A file that cannot be opened takes neither the listener nor its certificates from the proxy.
    await cp.apply(
        "{type: MeshAccessLog, mesh: default, name: all, spec: {targetRef: {kind: Mesh}, "
        "to: [{targetRef: {kind: Mesh}, default: {backends: [{file: {path: /dev/null}}, {file: {path: "
        f"'{tmp_path}/none/log'"
        "}}]}}]}}"
    )
    dataplane = resource(
        "{type: Dataplane, mesh: default, name: web-01, networking: {address: 127.0.0.1, "
        "inbound: [{port: 80, servicePort: 81, tags: {kuma.io/service: web}}]}}"
    )
    told = await cp.insight(dataplane, lambda insight: insight.withheld_inbounds)
    assert told.withheld_inbounds == (
        f"access logs: Envoy cannot open {tmp_path}/none/log; tried again when kuma-dp is restarted",
    )
    await mesh.converged()
    assert not any(counters.rejection for proxy in cp.parts.proxies for counters in proxy.record.counters.values())
    assert await web.call("backend") == 200


async def test_tcp_connections_are_logged_once_on_each_side(cp: Running, mesh: Sidecars, tmp_path: Path) -> None:
    """What comes in passes two listeners of one Envoy, and is one line. Lines are told apart by how much was sent."""
    outbound, inbound = tmp_path / "outbound.log", tmp_path / "inbound.log"
    web, _ = await mesh.pair("tcp")
    await cp.apply(mesh_with(outbound), TRAFFIC_LOG)
    plain = "%KUMA_TRAFFIC_DIRECTION% %DOWNSTREAM_PEER_URI_SAN% %UPSTREAM_HOST% received: %BYTES_RECEIVED% bytes"
    await cp.apply(
        "{type: MeshAccessLog, mesh: default, name: all, spec: {targetRef: {kind: MeshService, name: backend}, "
        f"from: [{{targetRef: {{kind: Mesh}}, default: {{backends: [{{type: File, file: {{path: {inbound}, "
        f"format: {{type: Plain, plain: '{plain}'}}}}}}]}}}}]}}}}"
    )
    await mesh.converged()
    size = 100

    async def logged(log: Path) -> list[str]:
        """The lines of a log, once the connection of this moment is in it; there is another one for each look."""
        nonlocal size
        size += 1
        assert await exchange(web.outbounds["backend"], b"x" * size) == b"backend:" + b"x" * size
        found = log.read_text().splitlines() if log.exists() else []
        return found if len(found) >= 3 else []

    for log in (outbound, inbound):
        lines = await until("three connections are logged", lambda log=log: logged(log))  # type: ignore[misc]
        sizes = [line.partition("received: ")[2] for line in lines]
        assert sorted(set(sizes)) == sorted(sizes), "each is one line"
    assert "(web)->127.0.0.1:" in outbound.read_text()
    direction, caller, workload = inbound.read_text().split()[:3]
    assert (direction, caller, workload.partition(":")[0]) == ("INBOUND", "spiffe://default/web", "127.0.0.1")
