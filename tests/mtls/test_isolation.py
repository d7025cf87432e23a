"""A control plane takes itself to be cut off when it alone cannot use the store, by what others say several times."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from kuma.base import aio
from kuma.coordination.heartbeat import BEAT
from kuma.coordination.isolation import Isolation
from kuma.coordination.peers import EXPIRY, Peers
from kuma.store.sql.embedded.sqlite import open_sqlite
from tests.fakes.clock import ManualClock


class Others:
    """What the others answer, and how often they were asked."""

    def __init__(self) -> None:
        self.can_use_store = True
        self.asked = 0

    async def ask(self, addresses: Sequence[str]) -> bool:
        self.asked += 1
        return self.can_use_store


class Place:
    """An isolation by a clock that the test moves; `told` is what was told of it."""

    def __init__(self, clock: ManualClock, peers: Peers) -> None:
        self.clock = clock
        self.peers = peers
        self.others = Others()
        self.told: list[bool] = []
        self.isolation = Isolation(clock, peers, self.others.ask, self.told.append)

    async def rounds(self, count: int) -> None:
        """So many looks, each of which has ended."""
        for _ in range(count):
            self.clock.advance(BEAT)
            sleepers = self.clock.sleepers
            while self.clock.sleepers <= sleepers:  # until it sleeps again
                await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def looking(place: Place) -> AsyncIterator[None]:
    task = aio.spawn(place.isolation.run(), name="isolation")
    while not place.clock.sleepers:
        await asyncio.sleep(0)
    try:
        yield
    finally:
        await aio.stop([task])


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    clock = ManualClock()
    store = await open_sqlite(tmp_path / "kuma.db", clock)
    try:
        yield Place(clock, Peers(store, clock, "own"))
    finally:
        await store.close()


async def test_it_is_cut_off_when_others_have_said_three_times_that_they_are_not(place: Place) -> None:
    async with looking(place):
        await place.rounds(int(EXPIRY / BEAT))
        assert place.others.asked == 0, "it has said something lately"
        await place.rounds(2)
        assert (place.others.asked, place.told) == (2, [])
        await place.rounds(1)
        assert place.told == [True]
        assert place.isolation.is_cut_off
        await place.rounds(5)
        assert place.told == [True]
        place.peers.said()
        await place.rounds(1)
        assert place.told == [True, False]
        assert not place.isolation.is_cut_off


async def test_while_nobody_can_use_the_store_nobody_is_cut_off(place: Place) -> None:
    place.others.can_use_store = False
    async with looking(place):
        await place.rounds(20)
        assert place.told == []
        place.others.can_use_store = True
        await place.rounds(2)
        place.others.can_use_store = False  # the store has come and gone
        await place.rounds(1)
        place.others.can_use_store = True
        await place.rounds(2)
        assert place.told == []


async def test_who_is_cut_off_is_so_until_others_have_not_said_so_three_times(place: Place) -> None:
    async with looking(place):
        await place.rounds(int(EXPIRY / BEAT) + 3)
        assert place.told == [True]
        place.others.can_use_store = False
        await place.rounds(2)
        assert place.isolation.is_cut_off
        await place.rounds(1)
        assert place.told == [True, False]
