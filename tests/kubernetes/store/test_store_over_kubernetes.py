"""The store over the Kubernetes API keeps what every store promises, and some things that only it could break."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from kuma.kubernetes.store.journal import Journal
from kuma.kubernetes.store.objects import Objects
from kuma.kubernetes.store.plan import Planner
from kuma.kubernetes.store.store import KubernetesStore
from kuma.kubernetes.store.writer import Writer
from kuma.resources.models.secret import SecretSpec
from kuma.store.protocol import Create, Listing, Operation, Put, Store, Update
from tests.conformance import test_store as suite
from tests.conformance.test_store import Opened
from tests.kubernetes.conftest import Place

pytestmark = pytest.mark.timeout(3600)  # the first test waits until the API server is built

_OTHERS = ("test_times_are_those_of_the_writes", "test_what_was_acknowledged_survives_kill_9")
"""The API server has a clock of its own; what is killed here is below."""
globals().update({name: test for name, test in vars(suite).items() if name.startswith("test_") and name not in _OTHERS})
store = suite.store


@pytest.fixture
def opened(place: Place) -> Opened:
    @contextlib.asynccontextmanager
    async def opened() -> AsyncIterator[Store]:
        async with place.client() as client:
            found = KubernetesStore(client, place.forms, kept=suite.KEPT, abandoned_after=timedelta(seconds=1))
            await found.open()
            try:
                yield found
            finally:
                await found.close()

    return opened


@pytest.fixture
def clock() -> None:
    """None: times are the API server's."""


async def test_pairs_are_whole_whenever_their_writer_is_killed(opened: Opened, place: Place) -> None:
    """A writer stores pairs in one transaction each and says when that is done; it is killed at a random moment."""
    acknowledged: set[str] = set()
    for number, delay in enumerate(random.Random(7).choices(range(20, 400), k=4)):
        command = [sys.executable, "-m", "tests.kubernetes.store.crashing_writer", str(place.kubeconfig)]
        process = subprocess.Popen([*command, place.forms.system, str(number)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        acknowledged.add(process.stdout.readline().strip())
        await asyncio.sleep(delay / 1000)
        process.kill()
        said = process.stdout.read().splitlines(keepends=True)
        acknowledged |= {line.strip() for line in said if line.endswith("\n")}
        process.stdout.close()
        process.wait()
    async with opened() as store:
        names = {resource.name for resource in (await store.list("Secret")).items}
    halves = {name.rpartition("-")[0] for name in names}
    assert acknowledged <= halves
    assert names == {f"{half}-{part}" for half, part in itertools.product(halves, ("cert", "key"))}


async def test_a_watch_goes_on_after_the_api_server_was_killed(store: Store, place: Place) -> None:
    """From where it was, or, if the server has forgotten that, from a new listing."""
    watching = suite.events(store)
    await anext(watching)
    place.cluster.restart()  # here, and in no thread: the server would end with the thread
    (stored,) = await store.transact([Create(suite.mesh())])
    event = await anext(watching)
    assert stored in event.resources if isinstance(event, Listing) else event.changes == (Put(stored),)
    await watching.aclose()


async def test_what_is_not_understood_stays_as_it_was_known(store: Store, place: Place) -> None:
    """Somebody has written it past the webhooks: to drop what denies would admit."""
    (known,) = await store.transact([Create(suite.permission("p"))])
    watching = suite.events(store)
    listing = await anext(watching)
    broken = '{"spec": {"nonsense": 1}}'
    place.cluster.kubectl("patch", "trafficpermission", "p", "--type=merge", "-p", broken)
    (later,) = await store.transact([Create(suite.mesh())])
    assert listing.resources == (known,)
    assert (await anext(watching)).changes == (Put(later),)
    await watching.aclose()


async def test_a_half_done_transaction_is_undone_if_others_have_changed_what_it_is_about(
    opened: Opened, place: Place
) -> None:
    async with opened() as store, place.client() as client:
        objects = Objects(client, place.forms)
        await store.transact([Create(suite.secret("taken"))])
        (old,) = await store.transact([Create(suite.secret("old"))])
        operations: list[Operation] = [Update(old.with_spec(SecretSpec(data=b"new"))), Create(suite.secret("fresh"))]
        writes = await Planner(objects, place.forms).plan(operations)
        journal = Journal(objects)
        name = journal.name()
        await journal.open(name, writes)
        await Writer(objects, name).do(writes[0])  # and then its process dies
        await store.transact([Create(suite.secret("fresh", b"of somebody else"))])
    async with opened() as store:
        assert (await store.get(old.key)).spec == old.spec
        assert (await store.get(suite.secret("fresh").key)).spec.data == b"of somebody else"
        async with place.client() as client:
            assert await Journal(Objects(client, place.forms)).names() == []
