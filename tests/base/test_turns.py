"""Long work gives way: to whatever else the loop has to do, and to other long work."""

import asyncio
from collections.abc import Iterator

import pytest

from kuma.base import aio
from kuma.base.turns import Turns

LONGER_THAN_A_TURN = 0.011


class Time:
    """Passes only while something works, so that a machine that stands still in between changes nothing."""

    now = 0.0

    def __call__(self) -> float:
        return self.now

    def work(self, count: int, seen: list[str], name: str = "") -> Iterator[int]:
        for number in range(count):
            self.now += LONGER_THAN_A_TURN
            seen.append(name)
            yield number


@pytest.fixture
def time() -> Time:
    return Time()


async def test_others_are_served_between_two_turns(time: Time) -> None:
    seen: list[str] = []

    async def other() -> None:
        while True:
            seen.append("other")
            await asyncio.sleep(0)

    watching = aio.spawn(other(), name="other")
    assert await Turns(time).collect(time.work(5, seen, "work")) == [0, 1, 2, 3, 4]
    await aio.stop([watching])
    assert "work work" not in " ".join(seen)


async def test_those_that_have_long_work_to_do_take_turns(time: Time) -> None:
    turns, seen = Turns(time), list[str]()
    found = await asyncio.gather(*(turns.collect(time.work(4, seen, name)) for name in "abc"))
    assert found == [[0, 1, 2, 3]] * 3
    assert "".join(seen) == "abc" * 4


async def test_what_fits_into_a_turn_is_done_without_a_pause(time: Time) -> None:
    collecting = Turns(time).collect(iter("abc"))
    with pytest.raises(StopIteration) as done:
        collecting.send(None)
    assert done.value.value == ["a", "b", "c"]


async def test_short_work_of_many_shares_the_turns(time: Time) -> None:
    """Of thousands of proxies that follow a change at once, no one has much to do, and all of them have."""
    turns, seen = Turns(time), list[str]()

    async def other() -> None:
        while True:
            seen.append("other")
            await asyncio.sleep(0)

    def short() -> Iterator[int]:
        time.now += LONGER_THAN_A_TURN / 4
        seen.append("work")
        yield 1

    watching = aio.spawn(other(), name="other")
    await asyncio.gather(*(turns.collect(short()) for _ in range(40)))
    await aio.stop([watching])
    longest = max(len(part.split()) for part in " ".join(seen).split("other"))
    assert seen.count("work") == 40
    assert longest <= 4


async def test_whoever_fails_or_is_stopped_leaves_the_turn_to_others(time: Time) -> None:
    turns = Turns(time)

    def failing() -> Iterator[int]:
        yield 1
        raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        await turns.collect(failing())
    stopped = aio.spawn(turns.collect(time.work(100, [])), name="long work")
    await asyncio.sleep(0)
    await aio.stop([stopped])
    assert await turns.collect([1]) == [1]
