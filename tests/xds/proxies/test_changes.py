"""What changes do to connected proxies, and what they do not: by the certificates and responses that proxies get."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from cryptography import x509
from structlog.testing import capture_logs

from kuma.resources import kinds
from kuma.resources.models.mesh_transition import Level
from kuma.xds.delta.session import Request
from kuma.xds.envoy.resource import TypeUrl
from tests.fakes import cas
from tests.fakes.clock import ManualClock
from tests.fakes.control_plane import ALLOW_ALL, MTLS, Running, dataplane, running
from tests.fakes.patience import PATIENCE
from tests.fakes.proxy import FakeProxy

WEB, BACKEND = dataplane("web-01", "web", calls=("backend",)), dataplane("backend-01", "backend")
PERMISSIVE = MTLS.replace("type: builtin", "type: builtin, mode: PERMISSIVE")
BY_SERVICE = (
    "{type: TrafficPermission, mesh: default, name: web, sources: [{match: {kuma.io/service: web}}], "
    "destinations: [{match: {kuma.io/service: backend}}]}"
)
DAY = 24 * 3600.0


def serial(proxy: FakeProxy) -> int:
    return x509.load_pem_x509_certificate(proxy.certificate).serial_number


def level(cp: Running) -> Level:
    return cp.parts.views.view("default").position.level


async def complete(cp: Running, wanted: Level) -> None:
    """Return once the mesh has arrived at a level, with nothing left to do."""

    def arrived() -> bool:
        transition = cp.parts.views.view("default").transition
        return transition is not None and transition.spec.complete and transition.spec.position.level is wanted

    await cp.until(arrived)


def issued(directory: Path, proxy: str = "default.web-01") -> list[str]:
    """The serials of the certificates of a proxy on record."""
    lines = [json.loads(line) for line in (directory / "audit.jsonl").read_text().splitlines()]
    return [line["serial"] for line in lines if line["event"] == "certificate issued" and line["proxy"] == proxy]


async def test_neither_the_mode_nor_a_permission_replaces_a_certificate(cp: Running, tmp_path: Path) -> None:
    await cp.apply(MTLS)
    web, _ = await cp.proxy(WEB), await cp.proxy(BACKEND)
    await cp.settled(2)
    first = serial(web)
    for text, arrives in ((PERMISSIVE, Level.ENCRYPTING), (MTLS, Level.STRICT)):
        await cp.apply(text)
        await complete(cp, arrives)
    await cp.apply(BY_SERVICE, ALLOW_ALL)
    await cp.delete(BY_SERVICE)
    await cp.apply(MTLS.replace("type: builtin", "type: builtin, rootChain: {requestTimeout: 5s}"))
    await cp.settled(2)
    assert serial(web) == first
    assert issued(tmp_path) == [f"{first:x}"], "nothing has been issued in between"
    await cp.apply(MTLS.replace("type: builtin", "type: builtin, dpCert: {rotation: {expiration: 1d}}"))
    await web.until(lambda: serial(web) != first)


async def test_an_empty_backend_turns_mtls_off(cp: Running) -> None:
    await cp.apply(MTLS)
    web, _ = await cp.proxy(WEB), await cp.proxy(BACKEND)
    await cp.settled(2)
    await cp.apply(MTLS.replace("enabledBackend: ca-1", "enabledBackend: ''"))
    await web.until(lambda: b"identity_cert" not in web.held[TypeUrl.CLUSTER]["backend"].value)
    await complete(cp, Level.PLAIN)


async def test_nobody_gets_a_certificate_on_the_way_out_of_mutual_tls(cp: Running, tmp_path: Path) -> None:
    """Least of all one that lives for longer than the Mesh allowed: no lifetime is declared any more."""
    await cp.apply(MTLS.replace("type: builtin", "type: builtin, dpCert: {rotation: {expiration: 1h}}"))
    web, _ = await cp.proxy(WEB), await cp.proxy(BACKEND)
    await cp.settled(2)
    first = serial(web)
    await cp.apply("{type: Mesh, name: default}")
    await complete(cp, Level.PLAIN)
    assert issued(tmp_path) == [f"{first:x}"]


async def test_an_authority_that_has_ended_takes_nothing_else_from_proxies(tmp_path: Path) -> None:
    """The last good certificate stays; endpoints, permissions and newcomers are served."""
    ca = cas.root(tmp_path, "root", days="20")
    clock = ManualClock(datetime.now(UTC) + timedelta(seconds=1))
    conf = {"cert": {"inlineString": ca.cert}, "key": {"inlineString": ca.key}}
    backend = {"name": "own", "type": "provided", "conf": conf}
    async with running(tmp_path, clock) as cp:
        await cp.apply(json.dumps({
            "type": "Mesh", "name": "default", "mtls": {"enabledBackend": "own", "backends": [backend]},
        }))  # fmt: skip
        await cp.apply_resource(WEB)
        await cp.apply_resource(BACKEND)
        web = await cp.proxy(WEB, bring=False)
        await cp.settled(1)
        clock.advance(21 * DAY)
        proxy = cp.parts.proxies.get(WEB.key)
        assert proxy is not None
        async with asyncio.timeout(PATIENCE):
            while not proxy.keeper.last_error:
                clock.advance(600)  # rotation is due since long; it has been tried again as well
                await asyncio.sleep(0)
        assert "ended at" in proxy.keeper.last_error
        last = web.certificate
        assert proxy.keeper.identity is not None
        assert proxy.keeper.identity.chain_pem == last

        before = len(web.received)
        newcomer = dataplane("backend-02", "backend", port=81)
        await cp.apply_resource(newcomer)
        late = await cp.proxy(newcomer, bring=False)
        await web.until(lambda: b"\x51" in web.held[TypeUrl.ENDPOINTS]["backend"].value)
        await cp.apply(ALLOW_ALL)
        await web.until(lambda: TypeUrl.ROUTES in {type_url for type_url, _ in web.received[before:]})
        await late.until(lambda: late.names(TypeUrl.LISTENER) and late.names(TypeUrl.CLUSTER))
        assert late.certificate == b""
        assert web.certificate == last
        assert proxy.keeper.entry is not None
        clock.advance(2)  # insights are held back for a moment
        insight = await cp.insight(WEB, lambda i: i.mtls)
        assert insight.mtls.issued_backend == "own"
        name = proxy.keeper.entry.name
        assert proxy.session.acked(TypeUrl.SECRET)[name] == proxy.keeper.entry.version


async def test_a_proxy_that_was_away_past_its_rotation_gets_a_fresh_certificate(tmp_path: Path) -> None:
    clock = ManualClock()
    async with running(tmp_path, clock) as cp:
        await cp.apply(MTLS)
        for described in (WEB, BACKEND):
            await cp.apply_resource(described)
        web = await cp.proxy(WEB, bring=False)
        await cp.settled(1)
        old = x509.load_pem_x509_certificate(web.certificate)
        await web.disconnect()
        await cp.disconnected(WEB)
        clock.advance(29 * DAY)  # past its rotation, and a day before its end
        again = await cp.proxy(WEB, bring=False)
        await cp.settled(1)
        new = x509.load_pem_x509_certificate(again.certificate)
        assert new.serial_number != old.serial_number
        assert new.not_valid_after_utc == clock.now() + timedelta(days=30)
        assert again.received, "by the first responses, not by a later rotation"


async def test_a_reconnect_in_permissive_mode_makes_no_caller_go_back_to_plaintext(cp: Running) -> None:
    await cp.apply(PERMISSIVE)
    web, backend = await cp.proxy(WEB), await cp.proxy(BACKEND)
    await cp.settled(2)
    await complete(cp, Level.ENCRYPTING)
    assert b"identity_cert" in web.held[TypeUrl.CLUSTER]["backend"].value
    before = len(web.received)
    for _ in range(3):
        await backend.disconnect()
        await cp.disconnected(BACKEND)
        backend = await cp.proxy(BACKEND)
        await cp.settled(2)
        await cp.insight(BACKEND, lambda i: i.online and i.mtls)
    late = await cp.proxy(dataplane("backend-02", "backend", port=81))
    await late.until(lambda: late.certificate)
    await cp.settled(3)
    clusters = [type_url for type_url, _ in web.received[before:] if type_url is TypeUrl.CLUSTER]
    assert clusters == [], "what a caller sends does not depend on who is connected"
    assert level(cp) is Level.ENCRYPTING


async def test_changes_arrive_while_the_clock_stands_still(tmp_path: Path) -> None:
    """Nothing is polled: ten changes of every sort, one after the other, none of which waits for any time to pass.

    But for the moment in which worker threads of Envoys apply what is acknowledged.
    """
    async with running(tmp_path, ManualClock()) as cp, asyncio.timeout(PATIENCE):
        web, backend = await cp.proxy(WEB), await cp.proxy(BACKEND)
        await cp.settled(2)
        for _ in range(2):
            await cp.apply(MTLS)
            await cp.until(lambda: b"identity_cert" in backend.held[TypeUrl.LISTENER]["inbound:10.0.0.1:80"].value)
            await complete(cp, Level.STRICT)
            routes = backend.held[TypeUrl.ROUTES]["inbound:10.0.0.1:80"]
            await cp.apply(ALLOW_ALL)
            await cp.until(lambda: backend.held[TypeUrl.ROUTES]["inbound:10.0.0.1:80"] != routes)  # noqa: B023
            await cp.delete(ALLOW_ALL)
            await cp.until(lambda: backend.held[TypeUrl.ROUTES]["inbound:10.0.0.1:80"] == routes)  # noqa: B023
            await cp.apply_resource(dataplane("backend-02", "backend", port=81))
            await cp.until(lambda: b"\x51" in web.held[TypeUrl.ENDPOINTS]["backend"].value)
            await cp.parts.manager.delete(kinds.DATAPLANE.key("backend-02", "default"))
            await cp.until(lambda: b"\x51" not in web.held[TypeUrl.ENDPOINTS]["backend"].value)
            await cp.apply("{type: Mesh, name: default}")
            await cp.until(lambda: b"identity_cert" not in web.held[TypeUrl.CLUSTER]["backend"].value)
            await complete(cp, Level.PLAIN)


async def test_a_change_of_mind_while_draining_is_complete_although_there_is_nothing_to_send(tmp_path: Path) -> None:
    """All proxies have acknowledged the drain; then the authority that was to go stays."""
    both = MTLS.replace("backends: [", "backends: [{name: ca-2, type: builtin}, ")
    async with running(tmp_path, ManualClock()) as cp:
        await cp.apply(both)
        web = await cp.proxy(WEB)
        await cp.settled(1)
        await complete(cp, Level.STRICT)
        await cp.apply(MTLS)
        await cp.until(lambda: cp.parts.views.view("default").position.draining)
        await web.until(lambda: b"@1" in web.held[TypeUrl.LISTENER]["inbound:10.0.0.1:80"].value)
        await cp.settled(1)
        received = len(web.received)
        await cp.apply(both)
        await complete(cp, Level.STRICT)
        position = cp.parts.views.view("default").position
        assert (position.draining, len(position.roots), position.epoch) == (False, 2, 1)
        assert len(web.received) == received
        transition = cp.parts.views.view("default").transition
        assert transition is not None
        assert (transition.spec.acknowledged, transition.spec.waiting_for, transition.spec.unresponsive) == (1, (), ())


async def test_certificates_are_counted_one_by_one_over_reconnects(cp: Running, tmp_path: Path) -> None:
    """Also those of one second, which end at the same instant."""
    await cp.apply(MTLS)
    serials = set()
    for _ in range(5):
        web = await cp.proxy(WEB)
        await web.until(lambda: web.certificate)  # noqa: B023
        await cp.settled(1)
        serials.add(f"{serial(web):x}")
        await web.disconnect()
        await cp.disconnected(WEB)
    assert set(issued(tmp_path)) == serials
    assert len(serials) == 5
    insight = await cp.insight(WEB, lambda i: not i.online and i.mtls and i.mtls.certificate_regenerations == 5)
    assert len(insight.subscriptions) == 2, "more than the streams that are kept"


async def test_metrics_count_certificates_and_show_when_an_authority_ends(cp: Running) -> None:
    await cp.apply(MTLS)
    for _ in range(2):
        web = await cp.proxy(WEB)
        await cp.settled(1)
        await web.disconnect()
        await cp.disconnected(WEB)
    labels = '{backend="ca-1",mesh="default"}'
    found = await metrics(cp)
    assert found[f"cert_generation_total{labels}"] == 2
    secret = await cp.parts.manager.get(kinds.SECRET.key("default.ca-builtin-cert-ca-1", "default"))
    end = x509.load_pem_x509_certificate(secret.spec.data).not_valid_after_utc
    assert found[f"ca_expiration_timestamp_seconds{labels}"] == end.timestamp()


async def metrics(cp: Running) -> dict[str, float]:
    """What Prometheus gets, by name and labels."""
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{await cp.parts.diagnostics.port()}", timeout=PATIENCE
    ) as client:
        lines = (await client.get("/metrics")).text.splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}


def problems(found: dict[str, float]) -> set[str]:
    return {name.rsplit('problem="')[1].rstrip('"}') for name in found if name.startswith("kuma_dataplane_problem{")}


async def metrics_with(cp: Running, expected: set[str]) -> dict[str, float]:
    """What Prometheus gets, once it tells just these problems of proxies."""
    async with asyncio.timeout(PATIENCE):
        while problems(found := await metrics(cp)) != expected:
            await asyncio.sleep(0.02)
    return found


async def test_metrics_tell_the_problems_of_a_proxy_while_it_has_them_and_how_far_the_mesh_is(cp: Running) -> None:
    await cp.apply(MTLS)
    web = await cp.proxy(WEB)
    await cp.settled(1)
    under_way = 'kuma_mesh_transition_started_timestamp_seconds{mesh="default"}'
    async with asyncio.timeout(PATIENCE):
        while under_way in await metrics(cp):  # until all threads of the proxy are taken to have followed
            await asyncio.sleep(0.02)
    found = await metrics_with(cp, set())
    assert found['kuma_mesh_level{mesh="default"}'] == Level.STRICT
    web.faults = {(TypeUrl.LISTENER, "inbound:10.0.0.1:81"): "port taken"}
    await cp.apply_resource(dataplane("web-01", "web", port=81, calls=("backend",)))
    (proxy,) = cp.parts.proxies
    await web.until(lambda: proxy.session.rejects(TypeUrl.LISTENER))
    await metrics_with(cp, {"configuration_rejected"})
    proxy.token = replace(proxy.token, warned=datetime.now(UTC))
    await metrics_with(cp, {"configuration_rejected", "token_near_its_end"})
    await cp.apply_resource(WEB)
    await metrics_with(cp, {"token_near_its_end"})


async def test_what_was_rejected_is_told_by_type_until_it_runs_and_what_follows_is_sent(cp: Running) -> None:
    await cp.apply(MTLS)
    with capture_logs() as logs:
        web = await cp.proxy(WEB)
        web.faults = {
            (TypeUrl.LISTENER, "inbound:10.0.0.1:80"): "port taken",
            (TypeUrl.SECRET, "mesh_ca:secret:default"): "no such root",
        }
        insight = await cp.insight(WEB, lambda i: current(i).sds.last_rejection and current(i).lds.last_rejection)
        (proxy,) = cp.parts.proxies
        await web.until(lambda: proxy.session.answered)
    insight = await cp.insight(WEB, lambda i: current(i).total.responses_rejected == len(rejections(logs)))
    told = {t.bucket: r for t in TypeUrl if (r := getattr(current(insight), t.bucket).last_rejection)}
    assert told == {"lds": "port taken", "sds": "no such root"}
    assert {(line["dataplane"], line["type"], line["reason"]) for line in rejections(logs)} == {
        ("web-01", bucket, reason) for bucket, reason in told.items()
    }
    await cp.apply_resource(dataplane("web-01", "web", port=81, calls=("backend",)))
    await web.until(lambda: "inbound:10.0.0.1:81" in web.names(TypeUrl.LISTENER))
    insight = await cp.insight(WEB, lambda i: not current(i).lds.last_rejection)
    assert current(insight).lds.responses_rejected
    assert current(insight).sds.last_rejection == "no such root", "that one is as true as before"


async def test_a_rejected_secret_that_is_wanted_no_more_is_not_told(cp: Running) -> None:
    """Nobody takes a secret away from a proxy, so that there is no response that it could acknowledge."""
    await cp.apply(MTLS)
    web = await cp.proxy(WEB)
    web.faults = {(TypeUrl.SECRET, "mesh_ca:secret:default"): "no such root"}
    await cp.insight(WEB, lambda i: current(i).sds.last_rejection)
    (proxy,) = cp.parts.proxies
    await web.until(lambda: proxy.session.answered)
    proxy.session.publish({})
    proxy.receive(Request(TypeUrl.CLUSTER))
    await cp.insight(WEB, lambda i: not current(i).sds.last_rejection)


def rejections(logs: Any) -> list[Any]:
    return [line for line in logs if line["event"] == "proxy rejected its configuration"]


def current(insight: Any) -> Any:
    """What is known of the newest stream of a proxy."""
    return insight.subscriptions[-1].status
