"""One control plane leads, never two; the Service finds it; and its certificate never ends while it runs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from kuma.app.serving import server_certificate
from kuma.app.serving.certificate_watch import CertificateWatch
from kuma.base import aio
from kuma.base.errors import Unavailable
from kuma.kubernetes.api import credentials
from kuma.kubernetes.api.client import ApiClient
from kuma.kubernetes.leadership import LeadershipLost, Lease
from kuma.kubernetes.pod_label import PodLabel
from kuma.kubernetes.webhooks.certificate import LIFETIME, Renewal, SharedCertificate
from tests.fakes.clock import ManualClock
from tests.fakes.patience import PATIENCE
from tests.kubernetes.between import Answer, Asked, Between, between, kubeconfig
from tests.kubernetes.conftest import Place

pytestmark = pytest.mark.timeout(3600)  # the first test waits until the API server is built


async def until(what: str, holds: Callable[[], bool] | Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            answer = holds()
            if answer if isinstance(answer, bool) else await answer:
                return
            await asyncio.sleep(0.02)


class Late:
    """Holds back answers to renewals until it is told otherwise; then the API server is away."""

    def __init__(self, proxy: Between) -> None:
        self._proxy = proxy
        self._come = threading.Event()
        self.is_held = False

    def hold(self) -> None:
        self._proxy.before_answer = self._hold

    def _hold(self, asked: Asked) -> None:
        if asked.method == "PUT":
            self.is_held = True
            self._come.wait(PATIENCE)
            self.is_held = False

    def come(self) -> None:
        self._proxy.interfere = lambda asked: Answer(503, "ServiceUnavailable")
        self._come.set()


@pytest.mark.parametrize("answered_after", [13, 60])
async def test_a_leader_stops_before_another_one_begins(place: Place, tmp_path: Path, answered_after: int) -> None:
    """It changes nothing more. It has renewed its lease, and hears so late, or not at all, and cannot once more."""
    of_first, of_second = ManualClock(), ManualClock()
    with between(place.cluster) as proxy:
        late = Late(proxy)
        async with ApiClient(credentials.find(kubeconfig(proxy, tmp_path))) as slow, place.client() as quick:
            first = Lease(slow, place.forms.system, "first", of_first, deadline=14)
            await first.acquire()
            late.hold()
            leading = aio.spawn(first.keep(), name="first")
            waiting = aio.spawn(Lease(quick, place.forms.system, "second", of_second).acquire(), name="second")
            await until("both wait", lambda: of_first.sleepers == 1 and of_second.sleepers == 1)
            stopped = 0
            for second in range(1, 40):
                if second == answered_after:
                    late.come()
                    await until("it hears", lambda: not late.is_held)
                of_first.advance(1)
                of_second.advance(1)
                await until("the first goes on", lambda: leading.done() or of_first.sleepers == 1 or late.is_held)
                await until("the second goes on", lambda: waiting.done() or of_second.sleepers == 1)
                stopped = stopped or (0 if first.leads else second)
                if waiting.done():
                    break
            assert stopped
            assert stopped < second
            assert waiting.done()
            with pytest.raises(Unavailable, match="another one may lead now"):
                first.check()
            late.come()
            await until("nothing is under way", lambda: of_first.sleepers == 1)
            await aio.stop([leading])


class Away:
    """The API server, which can be away."""

    def __init__(self, proxy: Between) -> None:
        self._proxy = proxy
        self.asked = 0
        self.is_away = False
        proxy.interfere = self._answer

    def _answer(self, asked: Asked) -> Answer | None:
        self.asked += 1
        return Answer(503, "ServiceUnavailable") if self.is_away else None

    async def pass_seconds(self, clock: ManualClock, seconds: int) -> None:
        """Let time pass in which the lease is tried to be renewed."""
        for _ in range(seconds // 2):
            before = self.asked
            await until("it waits", lambda: clock.sleepers == 1)
            clock.advance(2)
            await until("it has asked", lambda: self.asked > before)  # noqa: B023


async def test_a_leader_outlasts_the_api_server_and_changes_nothing_meanwhile(place: Place, tmp_path: Path) -> None:
    """It goes on serving: nobody else can lead. When the API server is back it leads again, under the same lease."""
    clock = ManualClock()
    with between(place.cluster) as proxy:
        api = Away(proxy)
        async with ApiClient(credentials.find(kubeconfig(proxy, tmp_path))) as client:
            lease = Lease(client, place.forms.system, "first", clock)
            lease.check()  # who has not led is kept from nothing: its webhooks write, too
            await lease.acquire()
            keeping = aio.spawn(lease.keep(), name="lease")
            api.is_away = True
            await api.pass_seconds(clock, 60)
            assert not lease.leads
            assert not keeping.done()
            map_ = {"metadata": {"name": "written"}, "apiVersion": "v1", "kind": "ConfigMap"}
            path = f"/api/v1/namespaces/{place.forms.system}/configmaps"
            with pytest.raises(Unavailable, match="another one may lead now"):
                await client.guarded(lease.check).create(path, map_)
            api.is_away = False
            await api.pass_seconds(clock, 2)
            await until("it leads", lambda: lease.leads)
            await client.guarded(lease.check).create(path, map_)
            found = await client.get(f"{lease_path(place)}")
            assert found["spec"]["holderIdentity"] == "first"
            assert found["spec"]["leaseTransitions"] == 0
            await aio.stop([keeping])


def lease_path(place: Place) -> str:
    return f"/apis/coordination.k8s.io/v1/namespaces/{place.forms.system}/leases/cp-leader-lease"


@pytest.mark.parametrize("taken", [True, False], ids=["another leads", "nobody knows for long"])
async def test_a_leader_ends_when_another_one_has_taken_its_place_or_may_have_for_long(
    place: Place, tmp_path: Path, taken: bool
) -> None:
    """What it serves would be old: proxies have to go to the other one."""
    clock = ManualClock()
    with between(place.cluster) as proxy:
        api = Away(proxy)
        async with ApiClient(credentials.find(kubeconfig(proxy, tmp_path))) as client, place.client() as other:
            lease = Lease(client, place.forms.system, "first", clock)
            await lease.acquire()
            keeping = aio.spawn(lease.keep(), name="lease")
            api.is_away = True
            await api.pass_seconds(clock, 20)
            if taken:
                found = await other.get(lease_path(place))
                await other.replace(lease_path(place), {**found, "spec": {**found["spec"], "holderIdentity": "second"}})
                api.is_away = False
            await until("it waits", lambda: clock.sleepers == 1)
            clock.advance(2 if taken else 300)
            await until("it ends", keeping.done)
            with pytest.raises(LeadershipLost):
                keeping.result()
            with pytest.raises(Unavailable):
                lease.check()


async def test_a_leader_that_comes_again_under_its_name_leads_at_once(place: Place) -> None:
    """As a container does that was killed: its Pod has the same name, and nobody else may have it."""
    clock = ManualClock()
    async with place.client() as client:
        await Lease(client, place.forms.system, "pod-1", clock).acquire()
        await Lease(client, place.forms.system, "pod-1", clock).acquire()


def pod(place: Place, name: str) -> str:
    metadata = {"name": name, "namespace": place.forms.system, "labels": {"app": "kuma-control-plane"}}
    spec = {"containers": [{"name": "control-plane", "image": "kuma-cp"}]}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})


async def test_the_pod_of_the_leader_is_labelled_whoever_meddles(place: Place) -> None:
    cluster, system = place.cluster, place.forms.system
    for name in ("one", "two"):
        cluster.kubectl("create", "--validate=false", "-f", "-", text=pod(place, name))

    def labelled() -> list[str]:
        found = cluster.kubectl("get", "pods", "-n", system, "-l", "kuma.io/leader=true", "-o", "name").stdout
        return found.split()

    async with place.client() as client, contextlib.AsyncExitStack() as stack:
        one, two = PodLabel(client, system, "one"), PodLabel(client, system, "two")
        for label in (one, two):
            stack.push_async_callback(aio.stop, [aio.spawn(label.run(), name="label")])
        one.put()
        await until("the leader is found", lambda: labelled() == ["pod/one"])
        cluster.kubectl("label", "pod", "one", "-n", system, "kuma.io/leader-")
        await until("it is found again", lambda: labelled() == ["pod/one"])
        cluster.kubectl("label", "pod", "two", "-n", system, "kuma.io/leader=true")
        await until("and no other", lambda: labelled() == ["pod/one"])
    async with place.client() as client:  # the first one hangs
        two = PodLabel(client, system, "two")
        task = aio.spawn(two.run(), name="label")
        two.put()
        await until("the other leads", lambda: labelled() == ["pod/two"])
        await two.take()
        assert labelled() == []
        await aio.stop([task])


async def test_the_label_is_put_as_soon_as_the_api_server_lets_us(place: Place, tmp_path: Path) -> None:
    place.cluster.kubectl("create", "--validate=false", "-f", "-", text=pod(place, "one"))
    with between(place.cluster) as proxy:
        refused: list[Asked] = []

        def interfere(asked: Asked) -> Answer | None:
            if asked.method == "PATCH" and len(refused) < 2:
                refused.append(asked)
                return Answer(503, "ServiceUnavailable")
            return None

        proxy.interfere = interfere
        async with ApiClient(credentials.find(kubeconfig(proxy, tmp_path))) as client:
            label = PodLabel(client, place.forms.system, "one")
            task = aio.spawn(label.run(), name="label")
            label.put()

            async def is_labelled() -> bool:
                found = await client.get(f"/api/v1/namespaces/{place.forms.system}/pods/one")
                return bool(found["metadata"]["labels"].get("kuma.io/leader") == "true")

            await until("it is labelled", is_labelled)
            assert len(refused) == 2
            await aio.stop([task])


async def test_the_certificate_is_renewed_while_control_planes_run(place: Place, tmp_path: Path) -> None:
    """By one of them; the other one takes up what that has made. The CA stays, so that everybody goes on knowing it."""
    clock = ManualClock()

    def ends(watch: CertificateWatch) -> object:
        return x509.load_pem_x509_certificate(watch.identity.pair[1]).not_valid_after_utc

    async with place.client() as client, contextlib.AsyncExitStack() as stack:
        watches = []
        for name in ("one", "two"):
            shared = SharedCertificate(client, place.forms.system, ["kuma-control-plane"])
            directory = tmp_path / name
            files = server_certificate.ServerCertificate(*await shared.ensure(directory, clock.now()))
            watches.append(CertificateWatch(lambda found=files: found, clock))  # type: ignore[misc]
            for part in (watches[-1], Renewal(shared, directory, clock)):
                stack.push_async_callback(aio.stop, [aio.spawn(part.run(), name=name)])
        before, ca = ends(watches[0]), watches[0].certificate.ca.read_bytes()
        await until("all wait", lambda: clock.sleepers == 4)
        clock.advance((LIFETIME - timedelta(days=1)).total_seconds())

        def renewed() -> bool:
            clock.advance(1)
            return ends(watches[0]) == ends(watches[1]) != before

        await until("both show another", renewed)
        assert watches[1].certificate.ca.read_bytes() == ca
