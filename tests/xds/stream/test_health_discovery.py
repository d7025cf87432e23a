"""Health discovery without an Envoy: who may report, what is asked, and what reports change."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import jwt
import pytest
from envoy.config.core.v3 import base_pb2, health_check_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.service.health.v3 import hds_pb2

from kuma.base import aio
from kuma.base.errors import InvalidResource
from kuma.resources import kinds, workload_health
from kuma.resources.models.dataplane import DataplaneSpec
from kuma.resources.models.secret import SecretSpec
from kuma.resources.resource import Resource
from kuma.xds.envoy.resource import TypeUrl
from kuma.xds.envoy.services import health_checks
from kuma.xds.envoy.services.health_checks import ProbeDefaults
from tests.fakes import reports
from tests.fakes.clock import ManualClock
from tests.fakes.control_plane import Running, resource, running
from tests.fakes.patience import PATIENCE
from tests.fakes.proxy import EOF

METHOD = "/envoy.service.health.v3.HealthDiscoveryService/StreamHealthCheck"
PROBE = "{interval: 2s, timeout: 1s, unhealthyThreshold: 3, healthyThreshold: 2, tcp: {}}"


def described(*probes: str, address: str = "10.0.0.1") -> Resource[DataplaneSpec]:
    """A Dataplane with an inbound for each probe; one without if it is empty."""
    inbounds = ", ".join(
        f"{{port: {80 + i}, serviceAddress: 127.0.0.1, servicePort: {8080 + i}, tags: {{kuma.io/service: web}}"
        + (f", serviceProbe: {probe}" if probe else "")
        + "}"
        for i, probe in enumerate(probes)
    )
    return resource(
        f"{{type: Dataplane, mesh: default, name: web-1, networking: {{address: {address}, inbound: [{inbounds}]}}}}"
    )


class Reporter:
    """A stream of health discovery, as Envoy opens it."""

    def __init__(self, to: grpc.aio.Channel, token: str, node: str = "default.web-1") -> None:
        method: Any = to.stream_stream(
            METHOD,
            request_serializer=hds_pb2.HealthCheckRequestOrEndpointHealthResponse.SerializeToString,
            response_deserializer=hds_pb2.HealthCheckSpecifier.FromString,
        )
        self._call = method(metadata=(("authorization", token),))
        self._node = node

    async def begin(self) -> None:
        request = hds_pb2.HealthCheckRequest(node=base_pb2.Node(id=self._node))
        await self._call.write(hds_pb2.HealthCheckRequestOrEndpointHealthResponse(health_check_request=request))

    async def asked(self) -> Any:
        """What it is to ask next."""
        async with asyncio.timeout(PATIENCE):
            found = await self._call.read()
        assert found is not EOF
        return found

    async def report(self, **clusters: bool) -> None:
        """Say of clusters, by the number of their inbound, whether their workloads answer."""
        message = hds_pb2.HealthCheckRequestOrEndpointHealthResponse()
        for number, answers in clusters.items():
            name = f"inbound:10.0.0.1:{number.removeprefix('port_')}"
            cluster = message.endpoint_health_response.cluster_endpoints_health.add(cluster_name=name)
            status = health_check_pb2.HEALTHY if answers else health_check_pb2.UNHEALTHY
            cluster.locality_endpoints_health.add().endpoints_health.add(health_status=status)
        await self._call.write(message)

    async def ended(self) -> grpc.StatusCode:
        """The status of a stream that the control plane has ended, after what it has sent until then."""
        async with asyncio.timeout(PATIENCE):
            with contextlib.suppress(grpc.aio.AioRpcError):
                while await self._call.read() is not EOF:
                    pass
            return grpc.StatusCode(await self._call.code())

    async def refusal(self) -> grpc.StatusCode:
        async with asyncio.timeout(PATIENCE):
            return grpc.StatusCode(await self._call.code())

    def end(self) -> None:
        self._call.cancel()


@pytest.fixture
async def cp(tmp_path: Path) -> AsyncIterator[Running]:
    async with running(tmp_path) as found:
        yield found


async def states(cp: Running, *expected: str) -> None:
    """Return once the inbounds are in these states."""
    async with asyncio.timeout(PATIENCE):
        while tuple(i.state for i in spec(cp).net.inbound) != expected:
            await asyncio.sleep(0.01)


def spec(cp: Running) -> DataplaneSpec:
    return cp.parts.views.view("default").dataplanes["web-1"].spec


async def test_what_a_proxy_reports_decides_who_is_called(cp: Running) -> None:
    caller = resource(
        "{type: Dataplane, mesh: default, name: caller-1, networking: {address: 10.0.0.2, "
        "inbound: [{port: 80, servicePort: 8080, tags: {kuma.io/service: caller}}], "
        "outbound: [{port: 20000, tags: {kuma.io/service: web}}]}}"
    )
    calling = await cp.proxy(caller)
    proxy = await cp.proxy(described(PROBE, ""))
    await proxy.until(lambda: proxy.names(TypeUrl.LISTENER))
    assert [i.state for i in spec(cp).net.inbound] == ["NotReady", "Ready"]

    def called() -> set[int]:
        held = endpoint_pb2.ClusterLoadAssignment()
        calling.held[TypeUrl.ENDPOINTS]["web"].Unpack(held)
        hosts = [host.endpoint.address.socket_address for group in held.endpoints for host in group.lb_endpoints]
        return {host.port_value for host in hosts}

    reporter = Reporter(await cp.channel(), cp.token())
    await reporter.begin()
    asked = await reporter.asked()
    (check,) = asked.cluster_health_checks
    (health,) = check.health_checks
    assert (health.interval.seconds, health.timeout.seconds) == (2, 1)
    assert (health.unhealthy_threshold.value, health.healthy_threshold.value) == (3, 2)
    host = check.locality_endpoints[0].endpoints[0].address.socket_address
    assert (host.address, host.port_value) == ("127.0.0.1", 8080)

    await reporter.report(port_80=True)
    await states(cp, "Ready", "Ready")
    await calling.until(lambda: called() == {80, 81})
    await reporter.report(port_80=False)
    await states(cp, "NotReady", "Ready")
    await calling.until(lambda: called() == {81})

    # Who writes the Dataplane again does not send callers there, nor does a proxy that brings it along again.
    await cp.apply_resource(described(PROBE, PROBE))
    await states(cp, "NotReady", "Ready")  # the second was called until now
    assert [c.cluster_name for c in (await reporter.asked()).cluster_health_checks] == [
        "inbound:10.0.0.1:80", "inbound:10.0.0.1:81",
    ]  # fmt: skip
    await reporter.report(port_80=True, port_81=False)
    await states(cp, "Ready", "NotReady")
    await cp.apply_resource(described("", ""))  # without a probe it is what its writer says
    await states(cp, "Ready", "Ready")
    assert not (await reporter.asked()).cluster_health_checks

    await proxy.disconnect()
    assert await reporter.refusal() is grpc.StatusCode.UNAVAILABLE


async def test_who_reports_is_authenticated(cp: Running) -> None:
    proxy = await cp.proxy(described(PROBE))
    await proxy.until(lambda: proxy.names(TypeUrl.LISTENER))
    for token, code in (
        ("", grpc.StatusCode.UNAUTHENTICATED),
        ("nonsense", grpc.StatusCode.UNAUTHENTICATED),
        (cp.token(name="another"), grpc.StatusCode.PERMISSION_DENIED),
        (cp.token(service="backend"), grpc.StatusCode.PERMISSION_DENIED),
    ):
        stranger = Reporter(await cp.channel(), token)
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await stranger.begin()
        assert await stranger.refusal() is code
    malformed = Reporter(await cp.channel(), cp.token(), node="nobody")
    await malformed.begin()
    assert await malformed.refusal() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_stream_that_came_before_its_dataplane_is_authorized_when_that_is_there(cp: Running) -> None:
    stranger = Reporter(await cp.channel(), cp.token(service="backend"))
    await stranger.begin()
    nobody = Reporter(await cp.channel(), cp.token(), node="nobody")  # whatever came before has been looked at by then
    await nobody.begin()
    assert await nobody.refusal() is grpc.StatusCode.INVALID_ARGUMENT
    proxy = await cp.proxy(described(PROBE))
    assert await stranger.ended() is grpc.StatusCode.PERMISSION_DENIED
    own = Reporter(await cp.channel(), cp.token(service="web"))
    await own.begin()
    await own.asked()
    assert proxy.connected


async def test_a_stream_ends_when_the_dataplane_becomes_what_its_token_does_not_allow(cp: Running) -> None:
    await cp.proxy(described(PROBE))
    reporter = Reporter(await cp.channel(), cp.token(service="web"))
    await reporter.begin()
    await reporter.asked()
    other = described(PROBE)
    (inbound,) = other.spec.net.inbound
    moved = inbound.model_copy(update={"tags": {**inbound.tags, "kuma.io/service": "backend"}})
    networking = other.spec.net.model_copy(update={"inbound": (moved,)})
    await cp.apply_resource(other.with_spec(other.spec.model_copy(update={"networking": networking})))
    assert await reporter.ended() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_stream_lives_no_longer_than_its_own_token(tmp_path: Path) -> None:
    """Which may be another one than that of the discovery stream of its proxy."""
    clock = ManualClock()
    async with running(tmp_path, clock) as cp:
        proxy = await cp.proxy(described(PROBE))
        stolen = cp.token(name="web-1")
        revoked = Reporter(await cp.channel(), stolen)
        short = Reporter(await cp.channel(), cp.token(name="web-1", valid_for=timedelta(minutes=30)))
        for reporter in (revoked, short):
            await reporter.begin()
            await reporter.asked()
        jti = jwt.decode(stolen, options={"verify_signature": False})["jti"]
        key = kinds.SECRET.key("dataplane-token-revocations-default", "default")
        await cp.apply_resource(Resource(key, SecretSpec(data=jti.encode())))
        assert await revoked.ended() is grpc.StatusCode.UNAUTHENTICATED

        ending = aio.spawn(short.ended(), name="end of the short token")
        async with asyncio.timeout(PATIENCE):
            while not ending.done():
                clock.advance(300)  # the clock is looked at in pieces
                await asyncio.sleep(0.01)
        assert ending.result() is grpc.StatusCode.UNAUTHENTICATED
        assert proxy.connected


async def test_nothing_is_parsed_before_the_token_holds_and_nothing_huge_at_all(cp: Running) -> None:
    await cp.apply_resource(described(PROBE))
    huge = b"\0" * ((1 << 20) + 1)
    for token, frame, code in (
        ("nonsense", b"\xff", grpc.StatusCode.UNAUTHENTICATED),
        (cp.token(), b"\xff", grpc.StatusCode.INVALID_ARGUMENT),
        (cp.token(), huge, grpc.StatusCode.INVALID_ARGUMENT),
    ):
        for method in (METHOD, reports.METHOD):
            open_stream: Any = (await cp.channel()).stream_stream
            call = open_stream(method)(metadata=(("authorization", token),))
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                await call.write(frame)
            async with asyncio.timeout(PATIENCE):
                assert await call.code() is code, method


def test_a_proxy_asks_only_what_is_served() -> None:
    """A withheld inbound leads to where the proxy is not to look, either."""
    networking = described(PROBE, PROBE, "").spec.net
    asked = health_checks.specifier(networking, {1: "leads elsewhere"}, ProbeDefaults())
    assert [check.cluster_name for check in asked.cluster_health_checks] == ["inbound:10.0.0.1:80"]


def test_what_a_probe_does_not_say_is_as_set() -> None:
    asked = health_checks.specifier(described("{}").spec.net, {}, ProbeDefaults(healthy_threshold=4))
    (health,) = asked.cluster_health_checks[0].health_checks
    assert (health.interval.seconds, health.timeout.seconds) == (1, 2)
    assert (health.unhealthy_threshold.value, health.healthy_threshold.value) == (1, 4)
    assert asked.interval.seconds == 1


@pytest.mark.parametrize(
    ("probe", "field"),
    [
        ("{interval: 0s}", "interval"),
        ("{timeout: soon}", "timeout"),
        ("{unhealthyThreshold: 0}", "unhealthyThreshold"),
        ("{healthyThreshold: -1}", "healthyThreshold"),
    ],
)
def test_a_probe_that_could_not_be_asked_is_refused(probe: str, field: str) -> None:
    with pytest.raises(InvalidResource) as refused:
        described(probe)
    (violation,) = refused.value.violations
    assert violation.field == f"networking.inbound[0].serviceProbe.{field}"
    assert violation.reason.startswith("must have a positive value")


def test_an_inbound_that_is_ignored_stays_so() -> None:
    wanted = described(PROBE).spec
    (inbound,) = wanted.net.inbound
    ignored = wanted.model_copy(
        update={
            "networking": wanted.net.model_copy(update={"inbound": (inbound.model_copy(update={"state": "Ignored"}),)})
        }
    )
    assert workload_health.meant(ignored, None) is not None
    assert workload_health.meant(ignored, None).net.inbound[0].state == "Ignored"
    assert workload_health.reported(ignored, {("10.0.0.1", 80): True}, ignored) is ignored
