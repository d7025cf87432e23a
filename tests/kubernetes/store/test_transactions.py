"""A change of several objects is done or undone whole, whatever comes between, and by nobody but a control plane."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from kuma.base.errors import NotFound, Unavailable
from kuma.kubernetes.api import credentials
from kuma.kubernetes.api.client import ApiClient
from kuma.kubernetes.metrics import Metrics
from kuma.kubernetes.store.journal import Journal
from kuma.kubernetes.store.objects import Objects
from kuma.kubernetes.store.plan import Planner
from kuma.kubernetes.store.seal import Seal
from kuma.kubernetes.store.store import KubernetesStore
from kuma.kubernetes.store.writer import Writer
from kuma.resources import kinds
from kuma.resources.models.config import ConfigSpec
from kuma.resources.resource import Resource
from kuma.store.protocol import Create, Delete, Listing, Put, Removed, Update
from tests.conformance import test_store as suite
from tests.fakes.patience import PATIENCE
from tests.kubernetes.between import Answer, Asked, Between, between, kubeconfig
from tests.kubernetes.conftest import Place

pytestmark = pytest.mark.timeout(3600)  # the first test waits until the API server is built


@pytest.fixture
def proxy(place: Place) -> Iterator[Between]:
    with between(place.cluster) as found:
        yield found


class Watched(KubernetesStore):
    """A store with what its control plane would show at `/metrics`."""

    def __init__(self, client: ApiClient, place: Place, registry: CollectorRegistry) -> None:
        super().__init__(client, place.forms, abandoned_after=timedelta(seconds=1))
        self._registry = registry

    def metric(self, name: str) -> float | None:
        return self._registry.get_sample_value(f"kubernetes_transactions_{name}")


@contextlib.asynccontextmanager
async def opened(place: Place, proxy: Between, directory: Path) -> AsyncIterator[Watched]:
    registry = CollectorRegistry()
    async with ApiClient(credentials.find(kubeconfig(proxy, directory)), Metrics(registry)) as client:
        store = Watched(client, place, registry)
        await store.open()
        try:
            yield store
        finally:
            proxy.interfere = lambda asked: None
            await store.close()


async def until(what: str, holds: Callable[[], object]) -> None:
    """Waits until something holds, which may be a coroutine's answer."""
    async with asyncio.timeout(PATIENCE):
        while True:
            answer = holds()
            if await answer if asyncio.iscoroutine(answer) else answer:
                return
            await asyncio.sleep(0.05)


async def notes(place: Place) -> list[str]:
    async with place.client() as client:
        found, _ = await client.list(
            f"/api/v1/namespaces/{place.forms.system}/secrets", fieldSelector="type=system.kuma.io/transaction"
        )
    return [note["metadata"]["name"] for note in found]


def note(place: Place, name: str, **data: str) -> str:
    """A note that somebody else has written, past the webhooks."""
    metadata = {"name": name, "namespace": place.forms.system, "labels": {"kuma.io/transaction": "true"}}
    encoded = {field: base64.b64encode(value.encode()).decode() for field, value in data.items()}
    found = {"apiVersion": "v1", "kind": "Secret", "type": "system.kuma.io/transaction", "metadata": metadata}
    return json.dumps({**found, "data": encoded})


FORGED = {"verb": "create", "key": ["Secret", "m", "forged"], "before": None, "owner": None}


@pytest.mark.parametrize("seal", ["", "x" * 32])
async def test_a_note_of_somebody_else_is_never_carried_out(
    place: Place, proxy: Between, tmp_path: Path, seal: str
) -> None:
    """Nor does it keep a control plane from starting. It is told by an event, a metric and in the log."""
    body = {
        "apiVersion": "v1", "kind": "Secret", "type": "system.kuma.io/secret", "data": {"value": ""},
        "metadata": {"name": "forged", "namespace": place.forms.system, "labels": {"kuma.io/mesh": "m"}},
    }  # fmt: skip
    writes = json.dumps({"format": 1, "writes": [{**FORGED, "body": body}]})
    data = {"writes": writes, **({"seal": seal} if seal else {})}
    place.cluster.kubectl("create", "-f", "-", text=note(place, "kuma-transaction-forged", **data))
    async with opened(place, proxy, tmp_path) as store:
        with pytest.raises(NotFound):
            await store.get(suite.secret("forged", mesh="m").key)
        assert store.metric("set_aside_total") == 1
    told = place.cluster.kubectl("get", "events", "-n", place.forms.system).stdout
    assert "TransactionSetAside" in told
    async with opened(place, proxy, tmp_path) as store:
        assert store.metric("set_aside_total") == 0  # it is known, and is not looked at again


async def test_a_note_that_comes_while_a_control_plane_runs_is_not_carried_out(
    place: Place, proxy: Between, tmp_path: Path
) -> None:
    async with opened(place, proxy, tmp_path) as store:
        watching = suite.events(store)
        await anext(watching)
        place.cluster.kubectl("create", "-f", "-", text=note(place, "kuma-transaction-later", writes="nonsense"))
        await until("it is set aside", lambda: store.metric("set_aside_total") == 1)
        await watching.aclose()


async def test_a_sealed_note_of_another_version_is_set_aside(place: Place, proxy: Between, tmp_path: Path) -> None:
    async with place.client() as client:
        content = json.dumps({"format": 99}).encode()
        path = f"/api/v1/namespaces/{place.forms.system}/secrets"
        seal = await Seal(client, path).of("kuma-transaction-newer", content)
        data = {name: base64.b64encode(value).decode() for name, value in (("writes", content), ("seal", seal))}
        found = json.loads(note(place, "kuma-transaction-newer"))
        await client.create(path, {**found, "data": data})
    async with opened(place, proxy, tmp_path) as store:
        assert store.metric("set_aside_total") == 1


async def test_a_key_that_somebody_else_has_made_is_replaced(place: Place, proxy: Between, tmp_path: Path) -> None:
    system = place.forms.system
    place.cluster.kubectl("create", "secret", "generic", "kuma-transaction-key", "-n", system, "--from-literal=value=x")
    async with opened(place, proxy, tmp_path) as store:
        await store.transact([Create(suite.secret("a")), Create(suite.secret("b"))])
    shown = place.cluster.kubectl("get", "secret", "kuma-transaction-key", "-n", system, "-o", "jsonpath={.type}")
    assert shown.stdout == "system.kuma.io/transaction-key"


@pytest.mark.parametrize("code", [403, 500])
async def test_what_was_left_in_the_middle_is_finished_by_the_same_process(
    place: Place, proxy: Between, tmp_path: Path, code: int
) -> None:
    """The API server refuses the second write, then lets it come: the first one is not alone for ever."""
    refusing = True

    def interfere(asked: Asked) -> Answer | None:
        writes = asked.method == "POST" and asked.path.endswith("/secrets")
        done = sum(one.method == "POST" and one.path.endswith("/secrets") for one in proxy.asked) > 2
        return Answer(code, "InternalError" if code == 500 else "Forbidden") if refusing and writes and done else None

    async with opened(place, proxy, tmp_path) as store:
        await store.transact([Create(suite.secret("x")), Create(suite.secret("y"))])  # makes the key
        proxy.asked.clear()
        proxy.interfere = interfere
        with pytest.raises(Unavailable):
            await store.transact([Create(suite.secret("a")), Create(suite.secret("b"))])
        assert len(await notes(place)) == 1
        await until("it is told that it stays so", lambda: store.metric("unfinished") == 1)
        refusing = False

        async def nothing_left() -> bool:
            return not await notes(place)

        await until("it is done", nothing_left)
        assert {item.name for item in (await store.list("Secret")).items} == {"a", "b", "x", "y"}
        await until("nothing is told any more", lambda: store.metric("unfinished") == 0)


async def test_an_undoing_that_fails_is_done_later(place: Place, proxy: Between, tmp_path: Path) -> None:
    """Somebody else is faster with the second object, and the API server refuses to take the first one back."""
    refusing = True

    def interfere(asked: Asked) -> Answer | None:
        if asked.method == "POST" and sum(one.method == "POST" for one in proxy.asked) == 3:
            place.cluster.kubectl("create", "-f", "-", text=json.dumps(theirs))
        return Answer(403, "Forbidden") if refusing and asked.method == "DELETE" else None

    async with opened(place, proxy, tmp_path) as store:
        await store.transact([Create(suite.secret("x")), Create(suite.secret("y"))])  # makes the key
        metadata = {"name": "b", "namespace": place.forms.system}
        theirs = {"apiVersion": "v1", "kind": "Secret", "type": "system.kuma.io/secret", "metadata": metadata}
        proxy.asked.clear()
        proxy.interfere = interfere
        with pytest.raises(Unavailable):
            await store.transact([Create(suite.secret("a")), Create(suite.secret("b"))])
        refusing = False

        async def nothing_left() -> bool:
            return not await notes(place)

        await until("it is over", nothing_left)
        assert {item.name for item in (await store.list("Secret")).items} == {"b", "x", "y"}


async def test_a_note_that_cannot_be_deleted_makes_no_failure_of_a_change_that_is_done(
    place: Place, proxy: Between, tmp_path: Path
) -> None:
    refusing = True

    def interfere(asked: Asked) -> Answer | None:
        is_note = "/kuma-transaction-" in asked.path and not asked.path.endswith("-key")
        return Answer(403, "Forbidden") if refusing and asked.method == "DELETE" and is_note else None

    async with opened(place, proxy, tmp_path) as store:
        proxy.interfere = interfere
        stored = await store.transact([Create(suite.secret("a")), Create(suite.secret("b"))])
        assert [resource.name for resource in stored] == ["a", "b"]
        refusing = False

        async def nothing_left() -> bool:
            return not await notes(place)

        await until("the note goes", nothing_left)


async def test_what_others_changed_after_a_transaction_is_not_undone(place: Place, proxy: Between) -> None:
    """They leave the mark of the transaction in the object, as `kubectl apply` does."""
    async with place.client() as client:
        objects = Objects(client, place.forms)
        store = KubernetesStore(client, place.forms, abandoned_after=timedelta(seconds=1))
        (old,) = await store.transact([Create(suite.secret("old"))])
        writes = await Planner(objects, place.forms).plan(
            [Update(old.with_spec(suite.secret("old", b"new").spec)), Create(suite.secret("fresh"))]
        )
        journal = Journal(objects)
        name = journal.name()
        await journal.open(name, writes)
        await Writer(objects, name).do(writes[0])  # and then its process dies
        theirs = json.dumps({"data": {"value": base64.b64encode(b"theirs").decode()}})
        place.cluster.kubectl("patch", "secret", "old", "-n", place.forms.system, "--type=merge", "-p", theirs)
        await store.transact([Create(suite.secret("fresh", b"of somebody else"))])
        await store.open()
        assert (await store.get(old.key)).spec.data == b"theirs"
        await store.close()


async def test_a_transaction_is_told_with_what_is_not_watched_in_it(
    place: Place, proxy: Between, tmp_path: Path
) -> None:
    """And one of which somebody else has deleted a part meanwhile."""
    async with opened(place, proxy, tmp_path) as store:
        _, secret = await store.transact([Create(suite.mesh()), Create(suite.secret("a"))])
        watching = suite.events(store)
        assert isinstance(await anext(watching), Listing)

        def interfere(asked: Asked) -> Answer | None:
            if asked.method == "DELETE" and asked.path.endswith("/a"):
                place.cluster.kubectl("delete", "secret", "a", "-n", place.forms.system)
            return None

        proxy.interfere = interfere
        config = Resource(kinds.CLUSTER_ID, ConfigSpec(config="x"))  # of a kind that no watch tells of
        other, _ = await store.transact([Delete(secret.key), Create(suite.secret("b")), Create(config)])
        told = [change for _ in range(2) for change in (await anext(watching)).changes]
        assert sorted(told, key=str) == sorted([Removed(secret.key), Put(other)], key=str)
        (last,) = await store.transact([Create(suite.secret("c"))])
        assert (await anext(watching)).changes == (Put(last),)
        await watching.aclose()
