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

from kuma.kubernetes.store.store import KubernetesStore
from kuma.store.protocol import Store
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
        command = [sys.executable, "-m", "tests.kubernetes.crashing_writer", str(place.kubeconfig), place.forms.system]
        process = subprocess.Popen([*command, str(number)], stdout=subprocess.PIPE, text=True)
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
