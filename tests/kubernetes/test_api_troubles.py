"""The API server restarts, is too busy, refuses or forgets its history: nothing is lost, and each is told."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import structlog
from prometheus_client import CollectorRegistry

from kuma.base import aio
from kuma.base.errors import Unavailable
from kuma.kubernetes.api import credentials, events
from kuma.kubernetes.api.client import ApiClient
from kuma.kubernetes.api.informer import Informer
from kuma.kubernetes.metrics import Metrics
from kuma.kubernetes.store.store import KubernetesStore
from kuma.store.protocol import Create, Delete, Listing, Put
from tests.conformance import test_store as suite
from tests.fakes.patience import PATIENCE
from tests.kubernetes.between import Answer, Asked, Between, between, kubeconfig
from tests.kubernetes.conftest import Place

pytestmark = pytest.mark.timeout(3600)  # the first test waits until the API server is built


@pytest.fixture
def proxy(place: Place) -> Iterator[Between]:
    with between(place.cluster) as found:
        yield found


async def until(what: str, holds: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not holds():
            await asyncio.sleep(0.02)


async def test_what_the_server_is_too_busy_for_is_asked_again(place: Place, proxy: Between, tmp_path: Path) -> None:
    """When it says; each request is refused twice. The store is not given up meanwhile."""
    refused: dict[Asked, int] = {}

    def busy(asked: Asked) -> Answer | None:
        refused[asked] = refused.get(asked, 0) + 1
        return Answer(429, "TooManyRequests", retry_after=0) if refused[asked] <= 2 else None

    registry = CollectorRegistry()
    proxy.interfere = busy
    async with ApiClient(credentials.find(kubeconfig(proxy, tmp_path)), Metrics(registry)) as client:
        store = KubernetesStore(client, place.forms)
        with structlog.testing.capture_logs() as logs:
            await store.open()
            watching = suite.events(store)
            assert isinstance(await anext(watching), Listing)
            (stored,) = await store.transact([Create(suite.mesh())])
            assert (await anext(watching)).changes == (Put(stored),)
        assert {"event": "the Kubernetes API is too busy: asking again", "log_level": "warning"}.items() <= logs[
            0
        ].items()
        counted = {"method": "POST", "status": "429"}
        assert registry.get_sample_value("kubernetes_api_requests_total", counted) == 2
        await watching.aclose()
        await store.close()


class Follower:
    """Follows a store: what is there, and how often all of it was listed."""

    def __init__(self, store: KubernetesStore) -> None:
        self._store = store
        self.names: set[str] = set()
        self.listings = 0

    async def run(self) -> None:
        async for event in self._store.watch():
            if isinstance(event, Listing):
                self.names, self.listings = {resource.name for resource in event.resources}, self.listings + 1
                continue
            for change in event.changes:
                if isinstance(change, Put):
                    self.names.add(change.resource.name)
                else:
                    self.names.discard(change.key.name)


async def test_after_the_past_is_forgotten_nothing_is_missing(place: Place, proxy: Between, tmp_path: Path) -> None:
    """Watches are cut off, and cannot go on where they were: what has come and gone meanwhile is told by a listing."""
    forgetful = False

    def interfere(asked: Asked) -> Answer | None:
        return Answer(410, "Expired") if forgetful and asked.is_watch else None

    registry = CollectorRegistry()
    proxy.interfere = interfere
    async with (
        ApiClient(credentials.find(kubeconfig(proxy, tmp_path)), Metrics(registry)) as client,
        place.client() as other,
    ):
        elsewhere = KubernetesStore(other, place.forms)
        (gone,) = await elsewhere.transact([Create(suite.secret("gone"))])
        informer = Informer(client, f"/api/v1/namespaces/{place.forms.system}/secrets")
        follower = Follower(KubernetesStore(client, place.forms))
        told: set[str] = set()
        informer.on_change(lambda one: told.add(one[1]))
        tasks = [aio.spawn(part.run(), name="following") for part in (informer, follower)]
        try:
            await until("both know it", lambda: "gone" in told and follower.names == {"gone"})
            told.clear()
            forgetful = True
            await elsewhere.transact([Delete(gone.key)])
            await elsewhere.transact([Create(suite.secret("fresh"))])

            def listed_anew() -> bool:
                proxy.cut_off()  # one that had not begun before, too
                return follower.listings > 1

            await until("all is listed anew", listed_anew)
            forgetful = False
            await until("the store has caught up", lambda: follower.names == {"fresh"})
            await until("the informer has, too", lambda: {"gone", "fresh"} <= told)
            assert "gone" not in {name for _, name in informer.objects}
            assert (registry.get_sample_value("kubernetes_watches_listed_anew_total") or 0) > 0
        finally:
            await aio.stop(tasks)


async def test_a_watch_that_is_refused_is_a_reason_not_to_be_ready(
    place: Place, proxy: Between, tmp_path: Path
) -> None:
    """As when RBAC lacks a verb. What comes meanwhile is told when it is there again."""
    refusing = False

    def interfere(asked: Asked) -> Answer | None:
        return Answer(403, "Forbidden") if refusing and asked.is_watch and asked.path.endswith("/meshes") else None

    proxy.interfere = interfere
    async with ApiClient(credentials.find(kubeconfig(proxy, tmp_path))) as client:
        store = KubernetesStore(client, place.forms)
        async with contextlib.aclosing(suite.events(store)) as watching:
            await anext(watching)
            refusing = True

            def told() -> bool:
                proxy.cut_off()
                return "/meshes: Forbidden, says the test" in store.problem

            await until("it is told", told)
            (stored,) = await store.transact([Create(suite.mesh())])
            refusing = False
            assert (await anext(watching)).changes == (Put(stored),)
            await until("all is well", lambda: not store.problem)


async def test_nonsense_from_the_api_server_ends_no_watch(place: Place, proxy: Between) -> None:
    """An object that is written past the webhooks, in a form that no version would write."""
    async with place.client() as client:
        store = KubernetesStore(client, place.forms)
        watching = suite.events(store)
        await anext(watching)
        odd: dict[str, object] = {
            "apiVersion": "kuma.io/v1alpha1",
            "kind": "TrafficPermission",
            "mesh": 7,
            "metadata": {"name": "odd"},
        }
        place.cluster.kubectl(
            "create", "--validate=false", "-f", "-", text=json.dumps(odd | {"spec": None}), check=False
        )
        place.cluster.kubectl("create", "-f", "-", text=json.dumps(odd | {"mesh": "m", "spec": {"sources": {"a": 1}}}),
                              check=False)  # fmt: skip
        (stored,) = await store.transact([Create(suite.mesh())])
        assert (await anext(watching)).changes == (Put(stored),)
        await watching.aclose()


async def test_an_event_that_is_refused_stops_nothing(place: Place, proxy: Between, tmp_path: Path) -> None:
    """As in a namespace that is being deleted. What could not be told is logged."""
    proxy.interfere = lambda asked: Answer(403, "Forbidden") if asked.path.endswith("/events") else None
    pod = {"kind": "Pod", "metadata": {"name": "one", "namespace": place.forms.system, "uid": "1"}}
    async with ApiClient(credentials.find(kubeconfig(proxy, tmp_path))) as client:
        with structlog.testing.capture_logs() as logs:
            await events.tell(client, pod, "source", "Normal", "CreatedKumaDataplane", "Created")
    (told,) = logs
    assert (told["event"], told["told"]) == ("an event was not told", "CreatedKumaDataplane")


async def test_an_answer_that_never_comes_is_waited_for_no_longer_than_there_is_time(
    place: Place, proxy: Between, tmp_path: Path
) -> None:
    """As behind a connection that has died: the reason is said, and the next question is answered."""
    answered = threading.Event()
    proxy.before_answer = lambda asked: assert_came(answered)
    async with ApiClient(credentials.find(kubeconfig(proxy, tmp_path))) as client:
        with pytest.raises(Unavailable, match="the Kubernetes API does not answer: it takes too long"):
            await client.within(0.05).get(f"/api/v1/namespaces/{place.forms.system}")
        answered.set()
        assert (await client.get(f"/api/v1/namespaces/{place.forms.system}"))["kind"] == "Namespace"


async def test_a_read_that_is_not_answered_is_given_up_before_a_write(
    place: Place, proxy: Between, tmp_path: Path
) -> None:
    """Who waits for it is told soon. It may be unknown for longer whether a write was done."""
    answered = threading.Event()
    proxy.before_answer = lambda asked: assert_came(answered)
    soon = httpx.Timeout(0.05, connect=PATIENCE)
    async with ApiClient(credentials.find(kubeconfig(proxy, tmp_path)), of_reads=soon) as client:
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "written"}}
        writing = aio.spawn(client.create(f"/api/v1/namespaces/{place.forms.system}/configmaps", body), name="a write")
        with pytest.raises(Unavailable, match="the Kubernetes API does not answer: it takes too long"):
            await client.get(f"/api/v1/namespaces/{place.forms.system}")
        with pytest.raises(Unavailable, match="it takes too long"):
            await client.list(f"/api/v1/namespaces/{place.forms.system}/pods")
        assert not writing.done()
        answered.set()
        assert (await writing)["metadata"]["name"] == "written"


def assert_came(event: threading.Event) -> None:
    assert event.wait(PATIENCE)
