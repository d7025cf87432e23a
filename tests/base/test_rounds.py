"""A round at once, and another when woken or when the time has come that the last one named."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from kuma.base import aio
from kuma.base.rounds import Rounds
from tests.fakes.clock import ManualClock


class Looked:
    """Counts rounds, and names the pause that the test wants."""

    def __init__(self, clock: ManualClock) -> None:
        self.rounds = Rounds(clock, "looking")
        self.count = 0
        self.pause: float | None = None
        self.enter: asyncio.Event | None = None

    async def look(self) -> float | None:
        self.count += 1
        if self.enter is not None:
            await self.enter.wait()
        return self.pause


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def going(looked: Looked) -> AsyncIterator[None]:
    task = aio.spawn(looked.rounds.run(looked.look), name="rounds")
    await settle()
    try:
        yield
    finally:
        await aio.stop([task])


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def looked(clock: ManualClock) -> Looked:
    return Looked(clock)


async def test_the_first_round_is_at_once_and_serves_whoever_woke_it_before(looked: Looked) -> None:
    looked.rounds.wake()
    async with going(looked):
        assert looked.count == 1


async def test_without_a_pause_only_waking_begins_another(looked: Looked, clock: ManualClock) -> None:
    async with going(looked):
        assert clock.sleepers == 0
        looked.rounds.wake()
        looked.rounds.wake()
        await settle()
        assert looked.count == 2


async def test_another_round_when_the_pause_is_over(looked: Looked, clock: ManualClock) -> None:
    looked.pause = 5
    async with going(looked):
        clock.advance(4)
        await settle()
        assert looked.count == 1
        clock.advance(1)
        await settle()
        assert looked.count == 2


@pytest.mark.parametrize("pause", [0.0, -1.0])
async def test_a_pause_that_is_over_already_is_none(looked: Looked, pause: float) -> None:
    looked.pause = pause
    async with going(looked):
        assert looked.count > 1


async def test_waking_ends_the_pause(looked: Looked, clock: ManualClock) -> None:
    looked.pause = 60
    async with going(looked):
        looked.pause = None
        looked.rounds.wake()
        await settle()
        assert (looked.count, clock.sleepers) == (2, 0)
        clock.advance(60)
        await settle()
        assert looked.count == 2


async def test_whoever_wakes_it_during_a_round_is_served_by_the_next(looked: Looked) -> None:
    looked.enter = asyncio.Event()
    async with going(looked):
        looked.rounds.wake()
        await settle()
        assert looked.count == 1
        looked.enter.set()
        await settle()
        assert looked.count == 2


async def test_cancelled_it_leaves_no_timer(looked: Looked, clock: ManualClock) -> None:
    looked.pause = 60
    async with going(looked):
        assert clock.sleepers == 1
    assert clock.sleepers == 0
