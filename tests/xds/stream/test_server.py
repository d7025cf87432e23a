"""The discovery server as proxies see it: real gRPC over TLS, a real store, simulated proxies."""

import asyncio
import ssl
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from cryptography import x509
from envoy.service.discovery.v3 import discovery_pb2
from structlog.testing import capture_logs

from kuma.base import aio
from kuma.base.values import contact_limit, farewell
from kuma.resources import kinds
from kuma.resources.models.mesh_transition import MeshTransitionSpec
from kuma.store.protocol import Commit, Put
from kuma.xds.envoy import resource_names
from kuma.xds.envoy.resource import TypeUrl
from kuma.xds.envoy.services import serving_label
from tests.fakes.clock import ManualClock
from tests.fakes.control_plane import ALLOW_ALL, MTLS, Running, dataplane, running
from tests.fakes.patience import PATIENCE
from tests.fakes.proxy import METHOD, FakeProxy

WEB, BACKEND = dataplane("web-01", "web", calls=("backend",)), dataplane("backend-01", "backend")
SECRETS = {"identity_cert:secret:default", "mesh_ca:secret:default"}


async def test_a_proxy_gets_everything_that_it_needs(cp: Running) -> None:
    await cp.apply(MTLS, ALLOW_ALL)
    await cp.proxy(BACKEND)
    web = await cp.proxy(WEB)
    await web.until(lambda: len(web.names(TypeUrl.SECRET)) == 4 and web.names(TypeUrl.ROUTES))
    assert web.names(TypeUrl.CLUSTER) == {"localhost:10.0.0.1:980", "backend", resource_names.ADMIN}
    assert web.names(TypeUrl.LISTENER) == {"inbound:10.0.0.1:80", "outbound:127.0.0.1:20000", resource_names.ADMIN}
    assert web.names(TypeUrl.SECRET) == SECRETS | {resource_names.ADMIN_IDENTITY, resource_names.ADMIN_CA}
    await web.until(lambda: b"10.0.0.1" in web.held[TypeUrl.ENDPOINTS]["backend"].value)
    leaf = x509.load_pem_x509_certificate(web.certificate)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["spiffe://default/web"]


async def test_clusters_come_before_the_listeners_that_use_them(cp: Running) -> None:
    await cp.apply(MTLS)
    web = await cp.proxy(WEB)
    await web.until(lambda: web.names(TypeUrl.LISTENER))
    order = [type_url for type_url, _ in web.received]
    assert order.index(TypeUrl.CLUSTER) < order.index(TypeUrl.ENDPOINTS) < order.index(TypeUrl.LISTENER)


async def test_what_a_proxy_listens_by_is_renewed_if_it_holds_for_a_time(tmp_path: Path) -> None:
    """As its node says; nothing of it counts as a change."""
    clock = ManualClock()
    async with running(tmp_path, clock) as cp:
        await cp.apply(MTLS, ALLOW_ALL)
        backend = FakeProxy("default.backend-01", cp.token(), BACKEND)
        backend.node.metadata.update({contact_limit.LIMIT: 45.0})
        backend.connect(await cp.channel())
        await cp.settled(1)
        (counters,) = (proxy.record.counters[TypeUrl.LISTENER] for proxy in cp.parts.proxies)
        before = counters.sent, counters.acked
        for seconds in (5, 20, 20):
            backend.received.clear()
            clock.advance(seconds)
            await backend.until(lambda: backend.received)
            await cp.settled(1)  # what is stored meanwhile, such as that it serves now, is looked at without a message
            assert [type_url for type_url, _ in backend.received] == [TypeUrl.LISTENER]
            assert (counters.sent, counters.acked) == before
        await backend.disconnect()


async def test_a_renewal_waits_for_a_proxy_that_has_not_asked_for_listeners_yet(tmp_path: Path) -> None:
    """It may have kept some from the stream before, which end before it is time for the next renewal."""
    clock, may_answer = ManualClock(), [False]
    async with running(tmp_path, clock) as cp:
        await cp.apply(MTLS, ALLOW_ALL)
        backend = FakeProxy("default.backend-01", cp.token(), BACKEND)
        backend.node.metadata.update({contact_limit.LIMIT: 45.0})
        backend.may_answer = lambda: may_answer[0]  # it asks for listeners after its clusters
        backend.connect(await cp.channel())
        await backend.until(lambda: any(task.get_name().startswith("renewals") for task in asyncio.all_tasks()))
        await backend.until(lambda: any(proxy.record.counters[TypeUrl.CLUSTER].sent for proxy in cp.parts.proxies))
        clock.advance(5)
        for _ in range(10):
            await asyncio.sleep(0)
        may_answer[0] = True
        await backend.until(lambda: [type_url for type_url, _ in backend.received].count(TypeUrl.LISTENER) == 2)
        await backend.disconnect()


async def test_a_changed_permission_reaches_only_listeners_and_routes(cp: Running) -> None:
    """Listeners too, when somebody loses it: what is open for them ends."""
    await cp.apply(MTLS, ALLOW_ALL)
    backend = await cp.proxy(BACKEND)
    await cp.settled(1)
    before = len(backend.received)
    await cp.delete(ALLOW_ALL)
    await backend.until(lambda: TypeUrl.ROUTES in {type_url for type_url, _ in backend.received[before:]})
    assert [type_url for type_url, _ in backend.received[before:]] == [TypeUrl.LISTENER, TypeUrl.ROUTES]


async def test_a_change_elsewhere_reaches_nobody_else(cp: Running) -> None:
    await cp.proxy(BACKEND)
    other = await cp.proxy(dataplane("other-01", "other"))
    web = await cp.proxy(WEB)
    await cp.settled(3)
    await cp.parts.views.until(
        lambda: all(map(serving_label.is_serving, cp.parts.views.view("default").dataplanes.values()))
    )
    await cp.settled(3)
    before = len(other.received), len(web.received)
    concerned: set[str] = set()
    cp.parts.proxies.on_progress(lambda proxy: concerned.add(proxy.key.name))
    await cp.proxy(dataplane("backend-02", "backend", port=81))
    await web.until(lambda: len(web.received) > before[1])
    assert [type_url for type_url, _ in web.received[before[1] :]] == [TypeUrl.ENDPOINTS]
    assert len(other.received) == before[0]
    assert concerned >= {"backend-02", "web-01"}
    assert "other-01" not in concerned, "nothing was even looked at for it"


async def test_turning_mtls_off_and_on(cp: Running) -> None:
    await cp.apply(MTLS)
    web = await cp.proxy(WEB)
    await web.until(lambda: web.certificate)
    first = web.certificate
    await cp.apply("{type: Mesh, name: default}")
    await web.until(lambda: b"identity_cert" not in web.held[TypeUrl.CLUSTER]["backend"].value)
    await cp.apply(MTLS)
    await web.until(lambda: web.certificate != first and b"identity_cert" in web.held[TypeUrl.CLUSTER]["backend"].value)


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        ("", "a dataplane token is required"),
        ("nonsense", "the token is damaged, or no token at all; make a new one with `kumactl generate"),
    ],
)
async def test_without_a_valid_token_there_is_nothing(cp: Running, token: str, reason: str) -> None:
    web = await cp.proxy(WEB, token)
    error = await web.failure()
    assert error.code is grpc.StatusCode.UNAUTHENTICATED
    assert f"authentication failed: {reason}" in error.details
    assert not web.received
    assert await cp.parts.manager.find(WEB.key) is None


async def test_a_token_for_another_name_or_service_gets_nothing(cp: Running) -> None:
    for token in (cp.token(name="web-02"), cp.token(service="api")):
        web = await cp.proxy(WEB, token)
        assert (await web.failure()).code is grpc.StatusCode.PERMISSION_DENIED
    assert await cp.parts.manager.find(WEB.key) is None


async def test_a_token_of_one_service_cannot_take_the_place_of_another(cp: Running) -> None:
    """The one that is stored counts as well as the one that is to replace it."""
    await cp.apply_resource(BACKEND)
    thief = await cp.proxy(dataplane("backend-01", "web"), cp.token(service="web"))
    assert (await thief.failure()).code is grpc.StatusCode.PERMISSION_DENIED
    assert (await cp.parts.manager.get(BACKEND.key)).spec == BACKEND.spec


async def test_a_stream_ends_when_its_dataplane_becomes_what_its_token_does_not_allow(cp: Running) -> None:
    web = await cp.proxy(WEB, cp.token(service="web"))
    await web.until(lambda: web.names(TypeUrl.LISTENER))
    await cp.apply_resource(dataplane("web-01", "backend"))
    assert (await web.failure()).code is grpc.StatusCode.PERMISSION_DENIED


async def test_a_dataplane_of_an_unknown_mesh(cp: Running) -> None:
    stranger = replace(WEB, key=kinds.DATAPLANE.key("web-01", "nowhere"))
    proxy = await cp.proxy(stranger, cp.token())
    assert (await proxy.failure()).code is grpc.StatusCode.UNAUTHENTICATED


async def test_a_dataplane_that_is_not_there(cp: Running) -> None:
    proxy = await cp.proxy(WEB, bring=False)
    assert 'resource "default.web-01" not found; create a Dataplane' in (await proxy.failure()).details


async def test_a_dataplane_created_through_the_api_is_served_and_stays(tmp_path: Path) -> None:
    clock = ManualClock()
    async with running(tmp_path, clock) as cp:
        await cp.apply_resource(WEB)
        await cp.come_and_gone(WEB, bring=False)
        await cp.come_and_gone(BACKEND)
        clock.advance(3600)
        await cp.parts.views.until(lambda: "backend-01" not in cp.parts.views.view("default").dataplanes)
        assert await cp.parts.manager.find(WEB.key) is not None


async def test_a_dataplane_that_was_brought_along_leaves_with_its_proxy_after_a_while(tmp_path: Path) -> None:
    clock = ManualClock()
    async with running(tmp_path, clock) as cp:
        await cp.come_and_gone(WEB)
        assert await cp.parts.manager.find(WEB.key) is not None
        clock.advance(10)
        await cp.parts.views.until(lambda: not cp.parts.views.view("default").dataplanes)


async def test_a_proxy_that_comes_back_in_time_keeps_its_dataplane(tmp_path: Path) -> None:
    clock = ManualClock()
    async with running(tmp_path, clock) as cp:
        for _ in range(3):
            await cp.come_and_gone(WEB)
            clock.advance(6)
        assert await cp.parts.manager.find(WEB.key) is not None


async def test_after_a_restart_proxies_have_a_minute_to_come_back(tmp_path: Path) -> None:
    clock = ManualClock()
    async with running(tmp_path, clock) as cp:
        for described in (WEB, BACKEND):
            proxy = await cp.proxy(described)
            await proxy.until(lambda: proxy.names(TypeUrl.LISTENER))  # noqa: B023
    async with running(tmp_path, clock) as cp:
        web = await cp.proxy(WEB)
        await web.until(lambda: web.names(TypeUrl.LISTENER))
        clock.advance(61)
        await cp.parts.views.until(lambda: set(cp.parts.views.view("default").dataplanes) == {"web-01"})


async def test_certificates_rotate_in_time_under_the_injected_clock(tmp_path: Path) -> None:
    clock = ManualClock()
    async with running(tmp_path, clock) as cp:
        await cp.apply(MTLS)
        web = await cp.proxy(WEB)
        await web.until(lambda: web.certificate)
        first = web.certificate
        days = 24 * 3600
        clock.advance(int(30 * 0.74 * days))
        before = len(web.received)
        await cp.apply(ALLOW_ALL)
        await web.until(lambda: len(web.received) > before)
        assert web.certificate == first
        for _ in range(2 * days // 600):
            clock.advance(600)
            await asyncio.sleep(0)
        await web.until(lambda: web.certificate != first)


async def test_a_restarted_control_plane_issues_anew(tmp_path: Path) -> None:
    certificates = []
    for _ in range(2):
        async with running(tmp_path) as cp:
            await cp.apply(MTLS)
            web = await cp.proxy(WEB)
            await web.until(lambda: web.certificate)  # noqa: B023
            certificates.append(web.certificate)
    assert certificates[0] != certificates[1]


async def test_a_rejection_is_seen_and_not_repeated(cp: Running) -> None:
    web = await cp.proxy(WEB)
    web.reject = lambda type_url: "no such filter" if type_url is TypeUrl.LISTENER else ""
    await web.until(lambda: any(t is TypeUrl.LISTENER for t, _ in web.received))
    attempts = 5  # its three listeners at once, then by parts until each has been rejected alone
    insight = await cp.insight(WEB, lambda i: i.subscriptions[-1].status.lds.responses_rejected == attempts)
    assert insight.subscriptions[-1].status.lds.last_rejection == "no such filter"
    assert sum(t is TypeUrl.LISTENER for t, _ in web.received) == attempts


async def test_what_is_kept_of_a_long_reason_is_its_beginning(cp: Running) -> None:
    web = await cp.proxy(WEB)
    web.reject = lambda type_url: "no such filter" + 100_000 * "!" if type_url is TypeUrl.CLUSTER else ""
    insight = await cp.insight(WEB, lambda i: i.subscriptions[-1].status.cds.last_rejection)
    reason = insight.subscriptions[-1].status.cds.last_rejection
    assert reason.startswith("no such filter!")
    assert len(reason) <= 2_000


async def test_what_a_proxy_says_commands_no_terminal(cp: Running) -> None:
    """It comes to the log and to whoever inspects the proxy; a terminal obeys what it is shown."""
    web = FakeProxy("default.web-01", cp.token(), WEB)
    web.node.metadata.update({"version": {"kumaDp": {"version": "\x1b]0;title\x07" + "2.7\u009b"}}})
    web.reject = lambda type_url: "\x1b[2Jbad\nnews\u202e" if type_url is TypeUrl.CLUSTER else ""
    with capture_logs() as logs:
        web.connect(await cp.channel())
        insight = await cp.insight(WEB, lambda i: i.subscriptions[-1].status.cds.last_rejection)
    (last,) = insight.subscriptions
    assert last.status.cds.last_rejection == "?[2Jbad\nnews?"
    assert last.version.kuma_dp.version == "?]0;title?2.7?"
    assert {line["reason"] for line in logs if "rejected" in line["event"]} == {"?[2Jbad\nnews?"}
    await web.disconnect()


async def test_the_insight_tells_the_life_of_a_proxy(cp: Running) -> None:
    await cp.apply(MTLS)
    web = await cp.proxy(WEB)
    insight = await cp.insight(WEB, lambda i: i.mtls and i.subscriptions[-1].status.total.responses_acknowledged > 3)
    assert insight.online
    assert (insight.mtls.issued_backend, insight.mtls.certificate_regenerations) == ("ca-1", 1)
    assert insight.mtls.supported_backends == ("ca-1",)
    await web.disconnect()
    assert not (await cp.insight(WEB, lambda i: not i.online)).online
    web = await cp.proxy(WEB)
    insight = await cp.insight(WEB, lambda i: i.online and i.mtls.certificate_regenerations == 2)
    assert len(insight.subscriptions) == 2


async def test_a_second_stream_takes_the_place_of_the_first(cp: Running) -> None:
    first = await cp.proxy(WEB)
    await first.until(lambda: first.names(TypeUrl.LISTENER))
    second = await cp.proxy(WEB)
    await second.until(lambda: second.names(TypeUrl.LISTENER))
    await first.failure()
    assert len(cp.parts.proxies) == 1


async def test_a_token_that_leaked_does_not_take_the_place_of_its_proxy(cp: Running) -> None:
    first = FakeProxy("default.web-01", cp.token(), WEB)
    first.node.metadata.update({farewell.DIGEST: farewell.digest("known to its kuma-dp")})
    first.connect(await cp.channel())
    await first.until(lambda: first.names(TypeUrl.LISTENER))
    (connected,) = cp.parts.proxies
    connected.host = "192.0.2.1"  # there is no other machine here
    thief = await cp.proxy(dataplane("web-01", "web", port=8080))
    failure = await thief.failure()
    assert (failure.code, "somebody else has its token" in failure.details) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED, True,
    )  # fmt: skip
    async with httpx.AsyncClient(verify=False, timeout=PATIENCE) as client:
        body = {"mesh": "default", "name": "web-01", "dataplaneToken": cp.token()}
        url = f"https://localhost:{await cp.parts.dp.port()}/withdraw"
        for proof in ({}, {"farewell": ""}, {"farewell": farewell.digest("known to its kuma-dp")}):
            said = await client.post(url, json={**body, **proof})
            assert (said.status_code, "somebody else has its token" in said.text) == (403, True)
    assert not connected.is_leaving, "its callers are sent there as before"
    another = await (await cp.proxy(WEB)).failure()  # nor by saying in its name that it ends
    assert another.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert list(cp.parts.proxies) == [connected]
    assert cp.parts.views.view("default").dataplanes["web-01"].spec == WEB.spec
    assert "somebody else has its token" in (cp.directory / "audit.jsonl").read_text()
    async with httpx.AsyncClient(
        verify=False, timeout=PATIENCE
    ) as client:  # by another way than its stream, as behind a translation
        assert (await client.post(url, json={**body, "farewell": "known to its kuma-dp"})).is_success
    await first.disconnect()
    await cp.disconnected(WEB)
    moved = await cp.proxy(WEB)
    await moved.until(lambda: moved.names(TypeUrl.LISTENER))


async def test_an_unknown_type_ends_the_stream_with_its_name(cp: Running) -> None:
    open_stream: Any = (await cp.channel()).stream_stream
    call = open_stream(METHOD, request_serializer=discovery_pb2.DeltaDiscoveryRequest.SerializeToString)(
        metadata=(("authorization", cp.token()),)
    )
    proxy = await cp.proxy(WEB)
    await proxy.until(lambda: proxy.names(TypeUrl.LISTENER))
    await call.write(discovery_pb2.DeltaDiscoveryRequest(node=proxy.node, type_url="type.googleapis.com/what"))
    assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "type.googleapis.com/what" in str(await call.details())


async def test_an_older_stream_that_ends_does_not_overwrite_what_a_newer_one_has_told(cp: Running) -> None:
    first = await cp.proxy(WEB)
    await cp.insight(WEB, lambda i: i.online)
    second = await cp.proxy(WEB)
    await second.until(lambda: second.names(TypeUrl.LISTENER))
    await first.failure()
    told = await cp.insight(WEB, lambda i: len(i.subscriptions) == 2 and bool(i.subscriptions[0].disconnect_time))
    assert told.online


async def test_counters_go_on_over_reconnects(cp: Running) -> None:
    """However few subscriptions are kept, nothing that was counted is lost."""
    sent = 0
    for _ in range(4):
        web = await cp.proxy(WEB)
        await web.until(lambda: web.names(TypeUrl.ROUTES))  # noqa: B023
        await cp.settled(1)
        await web.disconnect()
        sent += len(web.received)
        insight = await cp.insight(WEB, lambda i: not i.online and _sent(i) >= sent)  # noqa: B023
        assert _sent(insight) == sent
    assert len(insight.subscriptions) == 2


def _sent(insight: Any) -> int:
    return sum(subscription.status.total.responses_sent for subscription in insight.subscriptions)


async def test_a_proxy_that_never_acknowledges_is_named_and_its_mesh_is_not_complete(tmp_path: Path) -> None:
    clock = ManualClock()
    async with running(tmp_path, clock) as cp:
        await cp.apply(MTLS)
        key = kinds.MESH_TRANSITION.key("default", "default")

        async def until(unresponsive: tuple[str, ...], complete: bool) -> None:
            async with asyncio.timeout(PATIENCE):
                while True:
                    found = await cp.parts.manager.find(key)
                    names = tuple(awaited.name for awaited in found.spec.unresponsive) if found else None
                    if found and (names, found.spec.complete) == (unresponsive, complete):
                        return
                    await asyncio.sleep(0.01)

        await until((), True)
        web = await cp.proxy(WEB)
        web.reject = lambda type_url: "no" if type_url is TypeUrl.LISTENER else ""
        # Of what it rejects parts are sent again: as long as it answers to these it is waited for anew.
        passing = aio.spawn(_pass_time(clock, 31), name="time")
        await until(("web-01",), False)
        await aio.stop([passing])
        await web.disconnect()
        await cp.disconnected(WEB)
        clock.advance(5)  # a lost connection is no acknowledgement
        await until(("web-01",), False)
        clock.advance(10)  # it may go on: it has a certificate, and has not said that it ends
        await until(("web-01",), False)
        await cp.parts.manager.delete(WEB.key)  # somebody knows that it does not
        await until((), True)


async def _pass_time(clock: ManualClock, seconds: float) -> None:
    while True:
        clock.advance(seconds)
        await asyncio.sleep(0.2)


async def test_a_proxy_that_comes_back_with_less_is_not_complete(tmp_path: Path) -> None:
    async with running(tmp_path) as cp:
        await cp.apply(MTLS)
        web = await cp.proxy(WEB)
        await cp.settled(1)
        key = kinds.MESH_TRANSITION.key("default", "default")

        async def until(complete: bool, acknowledged: int) -> MeshTransitionSpec:
            async with asyncio.timeout(PATIENCE):
                while True:
                    found: MeshTransitionSpec = (await cp.parts.manager.get(key)).spec
                    if (found.complete, found.followers, found.acknowledged) == (complete, 1, acknowledged):
                        return found
                    await asyncio.sleep(0.01)

        await until(True, 1)
        await web.disconnect()
        again = await cp.proxy(WEB)
        again.silent = True
        found = await until(False, 0)
        assert [awaited.name for awaited in found.waiting_for] == ["web-01"]


async def test_an_authority_that_nobody_takes_up_is_not_activated(tmp_path: Path) -> None:
    """All proxies reject the new trust bundle: nothing they could not verify is issued, however long it takes."""
    clock = ManualClock()
    async with running(tmp_path, clock) as cp:
        await cp.apply(MTLS)
        proxies = [await cp.proxy(WEB), await cp.proxy(BACKEND)]
        await cp.settled(2)
        before = cp.parts.views.view("default").position.authority
        for proxy in proxies:
            proxy.reject = lambda type_url: "no" if type_url is TypeUrl.SECRET else ""
        two = MTLS.replace("enabledBackend: ca-1", "enabledBackend: ca-2").replace(
            "backends: [", "backends: [{name: ca-2, type: builtin}, "
        )
        await cp.apply(two)
        for _ in range(5):
            await cp.looked_around()
            clock.advance(31)
        await cp.looked_around()
        position = cp.parts.views.view("default").position
        assert position.authority == before
        assert len(position.roots) == 2


async def test_a_proxy_that_has_lost_its_connection_inside_a_change_is_waited_for_a_while(tmp_path: Path) -> None:
    clock = ManualClock()
    async with running(tmp_path, clock) as cp:
        await cp.apply_resource(WEB)
        await cp.apply_resource(BACKEND)
        web, backend = [await cp.proxy(described, bring=False) for described in (WEB, BACKEND)]
        await cp.settled(2)
        clock.advance(60)
        await web.disconnect()
        await cp.disconnected(WEB)
        await cp.apply(MTLS)
        await backend.until(lambda: backend.certificate)
        await cp.looked_around()
        level = cp.parts.views.view("default").position.level
        assert level == 1, "callers do not encrypt yet: web may still be plaintext only"
        clock.advance(16)
        await cp.until(lambda: cp.parts.views.view("default").position.level == 3)


async def test_callers_are_sent_to_a_proxy_once_it_serves_and_until_it_says_that_it_ends(cp: Running) -> None:
    await cp.apply(MTLS, ALLOW_ALL)
    web = await cp.proxy(WEB)
    await web.until(lambda: "backend" in web.names(TypeUrl.ENDPOINTS))

    def sees_backend() -> bool:
        return b"10.0.0.1" in web.held[TypeUrl.ENDPOINTS]["backend"].value

    slow = FakeProxy("default.backend-01", cp.token(), BACKEND)
    slow.silent = True
    slow.connect(await cp.channel())
    await slow.until(lambda: slow.received)
    before = len(web.received)
    await cp.delete(ALLOW_ALL)
    await web.until(lambda: len(web.received) > before)
    assert not sees_backend(), "it has acknowledged nothing yet"
    await slow.disconnect()
    await cp.proxy(BACKEND)
    await web.until(sees_backend)
    port = await cp.parts.dp.port()
    async with httpx.AsyncClient(
        verify=ssl.create_default_context(cadata=cp.ca_pem.decode()), timeout=PATIENCE
    ) as client:
        url, farewell = f"https://localhost:{port}/withdraw", {"mesh": "default", "name": "backend-01"}
        refused = await client.post(url, json={**farewell, "dataplaneToken": cp.token("web-01")})
        assert refused.status_code == 403
        assert sees_backend()
        assert (await client.post(url, json={**farewell, "dataplaneToken": cp.token("backend-01")})).is_success
    await web.until(lambda: not sees_backend())


async def test_who_ends_is_answered_once_its_callers_go_elsewhere_or_after_a_while(tmp_path: Path) -> None:
    clock = ManualClock()
    async with running(tmp_path, clock) as cp, httpx.AsyncClient(verify=False, timeout=PATIENCE) as client:
        await cp.apply(MTLS, ALLOW_ALL)
        web = await cp.proxy(WEB)

        def instances() -> int:
            found = web.held[TypeUrl.ENDPOINTS].get("backend")
            return 0 if found is None else int(found.value.count(b"10.0.0.1"))

        async def end(name: str) -> None:
            said = {"mesh": "default", "name": name, "dataplaneToken": cp.token(name)}
            assert (await client.post(f"https://localhost:{await cp.parts.dp.port()}/withdraw", json=said)).is_success

        for number in (1, 2):
            await cp.proxy(dataplane(f"backend-{number:02}", "backend", port=80 + number))
        await web.until(lambda: instances() == 2)
        await cp.settled(3)
        asked = 0

        def may_answer() -> bool:
            nonlocal asked
            asked += 1
            return asked > 5

        web.may_answer = may_answer
        await end("backend-01")
        assert instances() == 1
        await cp.settled(3)
        web.may_answer = lambda: False
        caller = cp.parts.proxies.get(WEB.key)
        assert caller is not None
        ending = aio.spawn(end("backend-02"), name="the end of backend-02")
        await cp.until(lambda: not caller.has_answered)
        while not ending.done():
            clock.advance(1)
            await asyncio.sleep(0.01)
        await ending
        assert instances() == 1, "it has answered nothing"


async def test_who_ends_waits_for_no_caller_that_has_left(tmp_path: Path) -> None:
    async with running(tmp_path, ManualClock()) as cp, httpx.AsyncClient(verify=False, timeout=PATIENCE) as client:
        await cp.apply(MTLS, ALLOW_ALL)
        web = await cp.proxy(WEB)
        await cp.proxy(dataplane("backend-01", "backend"))

        def called() -> bool:
            found = web.held[TypeUrl.ENDPOINTS].get("backend")
            return found is not None and b"10.0.0.1" in found.value

        await web.until(called)
        await cp.settled(2)
        web.may_answer = lambda: False
        caller = cp.parts.proxies.get(WEB.key)
        assert caller is not None
        said = {"mesh": "default", "name": "backend-01", "dataplaneToken": cp.token("backend-01")}
        url = f"https://localhost:{await cp.parts.dp.port()}/withdraw"
        ending = aio.spawn(client.post(url, json=said), name="the end of backend-01")
        await cp.until(lambda: not caller.has_answered)
        await web.disconnect()
        assert (await ending).is_success, "by a clock that stands still"


async def test_proxies_that_become_ready_together_are_shown_to_their_callers_together(cp: Running) -> None:
    await cp.apply(MTLS, ALLOW_ALL)
    web = await cp.proxy(WEB)
    await web.until(lambda: "backend" in web.names(TypeUrl.ENDPOINTS))
    instances = [dataplane(f"backend-{number:02}", "backend", port=100 + number) for number in range(30)]
    told = aio.spawn(_tellings(cp, len(instances)), name="commits")
    await asyncio.gather(*(cp.proxy(instance) for instance in instances))
    async with asyncio.timeout(PATIENCE):
        assert await told < len(instances), "each of them sends the endpoints to all callers"


async def _tellings(cp: Running, count: int) -> int:
    """How many commits there were that say of a Dataplane of `backend` that it serves, once `count` do."""
    found, served = 0, set[str]()
    async for event in cp.parts.manager.store.watch():
        if isinstance(event, Commit):
            puts = [change.resource for change in event.changes if isinstance(change, Put)]
            serving = {put.name for put in puts if put.labels.get(serving_label.SERVING) == "true"} - {"web-01"}
            found, served = found + bool(serving - served), served | serving
        if len(served) == count:
            break
    return found


async def test_what_an_envoy_decides_too_late_is_told_when_it_connects(cp: Running) -> None:
    """Of a TCP workload, which may speak first; over HTTP nobody is connected to before a request is admitted."""
    database = dataplane("db-01", "db")
    (inbound,) = database.spec.net.inbound
    tcp = inbound.model_copy(update={"tags": {"kuma.io/service": "db"}})
    net = database.spec.net.model_copy(update={"inbound": (tcp,)})
    database = database.with_spec(database.spec.model_copy(update={"networking": net}))
    with capture_logs() as logs:
        for described in (WEB, database):
            proxy = await cp.proxy(described)
            await proxy.until(lambda: proxy.names(TypeUrl.LISTENER))  # noqa: B023
    told = [entry for entry in logs if entry["event"].startswith("a TCP workload may be reached")]
    assert [(entry["dataplane"], entry["log_level"]) for entry in told] == [("db-01", "warning")]
    assert "Use Envoy 1.37 or later" in told[0]["reason"]
