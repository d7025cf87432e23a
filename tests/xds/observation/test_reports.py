"""Reports of callers: whose they are, what is counted, and that it is kept. The proxies are clients of gRPC."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import httpx
import jwt
import pytest
from envoy.data.accesslog.v3 import accesslog_pb2
from envoy.service.accesslog.v3 import als_pb2
from prometheus_client import CollectorRegistry

from kuma.base import aio
from kuma.base.tls.trust import NOBODY
from kuma.resources import kinds
from kuma.resources.models.mesh import MeshSpec
from kuma.resources.models.secret import SecretSpec
from kuma.resources.resource import Resource
from kuma.resources.tags import server_name
from kuma.store.protocol import Create
from kuma.store.sql.embedded.sqlite import open_sqlite
from kuma.xds.observation.edges import CallerEdge
from kuma.xds.proxies.metrics import Metrics
from kuma.xds.proxies.traffic_recorder import TrafficRecorder
from tests.fakes.clock import ManualClock
from tests.fakes.control_plane import ALLOW_ALL, MTLS, Running, dataplane, resource, running
from tests.fakes.patience import PATIENCE
from tests.fakes.reports import METHOD, entry, report

BACKEND, WEB = dataplane("backend-01", "backend", port=80), dataplane("web-01", "web", port=81)
PERMISSIVE = MTLS.replace("type: builtin", "type: builtin, mode: PERMISSIVE")
WEB_ONLY = ALLOW_ALL.replace("'*'", "web", 1)


async def seen(cp: Running) -> list[dict[str, Any]]:
    async with httpx.AsyncClient(verify=NOBODY, trust_env=False, timeout=PATIENCE) as client:
        answer = await client.get(f"http://localhost:{await cp.api_port()}/meshes/default/observed-traffic")
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()["items"]
        return found


@pytest.fixture
async def cp(tmp_path: Path) -> AsyncIterator[Running]:
    async with running(tmp_path) as found:
        await found.apply(PERMISSIVE, WEB_ONLY)
        await found.apply_resource(BACKEND)
        await found.apply_resource(WEB)
        yield found


async def test_what_each_kind_of_caller_is_counted_as(cp: Running) -> None:
    opened, periodic = accesslog_pb2.TcpUpstreamConnected, accesslog_pb2.TcpPeriodic
    ended_over_tcp = entry("mesh_tls", "spiffe://default/web")
    ended_over_tcp.common_properties.upstream_remote_address.socket_address.port_value = 980
    status = await report(
        cp,
        cp.token(name="backend-01"),
        entry("mesh_tls_f6", "spiffe://default/web"),
        entry("mesh_tls", "spiffe://default/web", access_log_type=opened),
        entry("mesh_tls", "spiffe://default/web", access_log_type=periodic),
        ended_over_tcp,
        entry("mesh_tls", "spiffe://default/other"),
        entry("mesh_tls"),
        entry("plaintext", address="10.0.0.1", downstream_transport_failure_reason="TLS_error|HTTP_REQUEST"),
        entry("foreign_tls"),
        entry("mesh_tls", downstream_transport_failure_reason="TLS_error:|WRONG_VERSION_NUMBER"),
        entry("mesh_tls", "spiffe://default/web", port=4711),
    )
    assert status is grpc.StatusCode.OK
    found = {(i["caller"], i["how"], i["outcome"]): i for i in await seen(cp)}
    assert {key: i["connections"] for key, i in found.items()} == {
        ("web", "meshTls", "allowed"): 2,
        ("other", "meshTls", "refused"): 1,
        ("10.0.0.1", "plaintext", "allowed"): 1,
        ("10.0.0.9", "foreignTls", "allowed"): 1,
        ("10.0.0.9", "plaintext", "refused"): 1,
    }
    assert found["10.0.0.1", "plaintext", "allowed"]["knownAs"] == ["backend-01", "web-01"]
    assert found["web", "meshTls", "allowed"]["service"] == "backend"
    async with httpx.AsyncClient(verify=NOBODY, trust_env=False, timeout=PATIENCE) as client:
        metrics = (await client.get(f"http://127.0.0.1:{await cp.parts.diagnostics.port()}/metrics")).text
    counted = 'kuma_observed_connections_total{{how="{}",mesh="default",outcome="{}"}} {}.0'
    for how, outcome, connections in (
        ("meshTls", "allowed", 2),
        ("plaintext", "allowed", 1),
        ("plaintext", "refused", 1),
    ):
        assert counted.format(how, outcome, connections) in metrics


async def test_a_call_of_a_port_of_several_services_is_of_the_one_that_the_caller_asks_for(cp: Running) -> None:
    """By the server's name of its TLS, which is a service and its tags. One that names none is of the first one."""
    inbounds = ", ".join(
        f"{{port: 80, servicePort: 980, tags: {{kuma.io/service: {service}, kuma.io/protocol: http}}}}"
        for service in ("backend", "backend-old")
    )
    text = "{type: Dataplane, mesh: default, name: backend-01, networking: {address: 10.0.0.1, inbound: [INBOUNDS]}}"
    await cp.apply_resource(resource(text.replace("INBOUNDS", inbounds)))
    asked = []
    for caller, name in (
        ("a", server_name("default", {"kuma.io/service": "backend"})),
        ("b", server_name("default", {"kuma.io/service": "backend-old"})),
        ("c", "elsewhere"),
        ("d", ""),
    ):
        asked.append(entry("mesh_tls", f"spiffe://default/{caller}"))
        asked[-1].common_properties.tls_properties.tls_sni_hostname = name
    assert await report(cp, cp.token(name="backend-01"), *asked) is grpc.StatusCode.OK
    assert {(one["caller"], one["service"]) for one in await seen(cp)} == {
        ("a", "backend"), ("b", "backend-old"), ("c", "backend"), ("d", "backend"),
    }  # fmt: skip


async def test_callers_are_judged_by_all_that_their_certificate_shows(cp: Running) -> None:
    """Even if that is more, and longer, than is kept of it."""
    await cp.apply(
        "{type: TrafficPermission, mesh: default, name: by-tag, sources: [{match: {zzz: last}}], "
        "destinations: [{match: {kuma.io/service: backend}}]}"
    )
    long = f"{'l' * 240}-caller"
    many = [f"kuma://a{number:02}/x" for number in range(30)]
    entries = (
        entry("mesh_tls", "spiffe://default/web", *many, "kuma://zzz/last"),
        entry("mesh_tls", *many, f"spiffe://default/{long}"),
    )
    assert await report(cp, cp.token(name="backend-01"), *entries) is grpc.StatusCode.OK
    assert {(one["caller"], one["outcome"]) for one in await seen(cp)} == {("web", "allowed"), (long, "refused")}


async def test_clocks_that_are_off_are_noticed_by_what_is_reported(cp: Running) -> None:
    now = datetime.now(UTC)
    for off, expected in ((0, []), (-20, []), (300, [300]), (-4000, [-4000]), (0, [])):
        ended = entry("plaintext")
        ended.common_properties.start_time.FromDatetime(now + timedelta(seconds=off - 5))
        ended.common_properties.duration.FromTimedelta(timedelta(seconds=5))
        assert await report(cp, cp.token(name="backend-01"), ended) is grpc.StatusCode.OK
        async with httpx.AsyncClient(verify=NOBODY, trust_env=False, timeout=PATIENCE) as client:
            answer = await client.get(f"http://localhost:{await cp.api_port()}/observed-traffic")
        told = [round(clock["aheadSeconds"], -2) for clock in answer.json()["items"][0]["clocksOff"]]
        assert told == expected


async def test_what_a_proxy_invents_takes_little_room_and_commands_no_terminal(cp: Running) -> None:
    names = [f"spiffe://default/\x1b[31m{'x' * 10_000}{number}" for number in range(50)]
    invented = (entry("mesh_tls", *names), entry("plaintext", address="no address " * 10_000))
    assert await report(cp, cp.token(name="backend-01"), *invented) is grpc.StatusCode.OK
    shown = await seen(cp)
    assert len(shown) == 2
    assert len(json.dumps(shown)) < 20_000
    assert "\x1b" not in "".join(uri for one in shown for uri in one["uris"])


async def test_a_proxy_reports_about_itself_only_and_nobody_without_a_token_at_all(cp: Running) -> None:
    spoken = entry("plaintext")
    assert await report(cp, cp.token(name="web-01"), spoken) is grpc.StatusCode.PERMISSION_DENIED
    assert await report(cp, "", spoken) is grpc.StatusCode.UNAUTHENTICATED
    assert await report(cp, cp.token(name="gone"), spoken, node="default.gone") is grpc.StatusCode.PERMISSION_DENIED
    assert not await seen(cp)


async def test_a_stream_that_says_nothing_ends_with_its_token(cp: Running) -> None:
    stolen = cp.token(name="backend-01")
    message = als_pb2.StreamAccessLogsMessage()
    message.identifier.node.id = "default.backend-01"
    message.tcp_logs.log_entry.append(entry("plaintext"))
    open_stream: Any = (await cp.channel()).stream_unary
    call = open_stream(METHOD, request_serializer=als_pb2.StreamAccessLogsMessage.SerializeToString)(
        metadata=(("authorization", stolen),)
    )
    await call.write(message)
    async with asyncio.timeout(PATIENCE):
        while not await seen(cp):
            await asyncio.sleep(0.01)
        jti = jwt.decode(stolen, options={"verify_signature": False})["jti"]
        key = kinds.SECRET.key("dataplane-token-revocations-default", "default")
        await cp.apply_resource(Resource(key, SecretSpec(data=jti.encode())))
        assert await call.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_it_is_kept_over_a_restart_and_goes_with_the_dataplane(tmp_path: Path) -> None:
    clock = ManualClock(datetime.now(UTC))
    for count in (1, 2):
        async with running(tmp_path, clock) as cp:
            await cp.apply(PERMISSIVE, WEB_ONLY)
            await cp.apply_resource(BACKEND)
            stream = aio.spawn(
                report(cp, cp.token(name="backend-01"), entry("mesh_tls", "spiffe://default/web")), name="reports"
            )
            async with asyncio.timeout(PATIENCE):
                while not ((found := await seen(cp)) and found[0]["connections"] == count):
                    await asyncio.sleep(0.01)
            await aio.stop([stream])
    async with running(tmp_path, clock) as cp:
        await cp.parts.manager.delete(BACKEND.key)
        assert not (await cp.parts.manager.list(kinds.OBSERVED_TRAFFIC.name)).total


async def test_what_is_remembered_ends_with_the_proxy(tmp_path: Path) -> None:
    """Names of those that have been there are not kept: of one that is written after its end, either."""
    clock = ManualClock(datetime.now(UTC))
    store = await open_sqlite(tmp_path / "kuma.db", clock)
    mesh = kinds.MESH.key("default")
    await store.transact([Create(Resource(mesh, MeshSpec())), *(Create(one, mesh) for one in (BACKEND, WEB))])
    recorder = TrafficRecorder(store, clock, Metrics(CollectorRegistry()).observed)
    caller = CallerEdge("backend", 80, "plaintext", "allowed", address="10.0.0.9")
    for dataplane_key in (BACKEND.key, WEB.key):
        recorder.began(dataplane_key)
        recorder.note(dataplane_key, caller, 1)
    recorder.ended(WEB.key)
    writing = aio.spawn(recorder.run(), name="observed traffic")
    await asyncio.sleep(0)
    await aio.stop([writing])  # it writes all that it has
    assert (await store.list(kinds.OBSERVED_TRAFFIC.name)).total == 2
    assert recorder.remembered == {BACKEND.key}
    await store.close()


async def test_control_planes_add_up_what_each_has_heard(tmp_path: Path) -> None:
    clock = ManualClock(datetime.now(UTC))
    store = await open_sqlite(tmp_path / "kuma.db", clock)
    mesh = kinds.MESH.key("default")
    await store.transact([Create(Resource(mesh, MeshSpec())), Create(BACKEND, mesh)])
    caller = CallerEdge("backend", 80, "plaintext", "allowed", address="10.0.0.9")
    planes = [TrafficRecorder(store, clock, Metrics(CollectorRegistry()).observed) for _ in range(2)]
    for connections, recorder in enumerate(planes, start=2):
        recorder.note(BACKEND.key, caller, connections)
    writing = [aio.spawn(recorder.run(), name="observed traffic") for recorder in planes]
    await asyncio.sleep(0)
    await aio.stop(writing)  # both write at once what they have
    (stored,) = (await store.list(kinds.OBSERVED_TRAFFIC.name)).items
    assert [(edge.address, edge.connections) for edge in stored.spec.edges] == [("10.0.0.9", 5)]
    await store.close()


async def test_without_the_setting_nobody_is_asked_and_nobody_heard(tmp_path: Path) -> None:
    async with running(tmp_path, xds_server={"port": 0, "observed_traffic": False}) as cp:
        await cp.apply(PERMISSIVE)
        await cp.apply_resource(BACKEND)
        assert await report(cp, cp.token(name="backend-01"), entry()) is grpc.StatusCode.UNIMPLEMENTED
        assert not await seen(cp)
