"""Components live and die together, and say who failed."""

from __future__ import annotations

import asyncio
import gc

import pytest
import structlog

from kuma.base import aio
from kuma.base.errors import ComponentFailed


class Eternal:
    stopped = False

    async def run(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self.stopped = True


class Failing:
    async def run(self) -> None:
        raise RuntimeError("disk full")


async def test_the_first_failure_stops_the_rest_and_is_named() -> None:
    other = Eternal()
    with pytest.raises(ComponentFailed, match="api stopped: disk full"):
        await aio.supervise([("store", other), ("api", Failing())])
    assert other.stopped


async def test_whatever_fails_at_once_is_told_and_nothing_of_it_is_left_to_asyncio() -> None:
    complaints: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    with pytest.raises(ComponentFailed) as caught:
        await aio.supervise([("store", Eternal()), ("api", Failing()), ("xds", Failing())])
    assert [str(cause) for cause in caught.value.causes] == ["disk full", "disk full"]
    del caught
    gc.collect()
    assert not complaints


async def test_a_task_that_had_failed_before_it_was_stopped_is_logged_by_name() -> None:
    task = aio.spawn(Failing().run(), name="writer")
    await asyncio.sleep(0)
    with structlog.testing.capture_logs() as logs:
        await aio.stop([task])
        await aio.stop([task])  # its failure is known by now
    assert [(line["task"], line["reason"]) for line in logs] == [("writer", "disk full")]


async def test_latest_wakes_who_waits_for_a_newer_value() -> None:
    latest = aio.Latest("a")
    waiting = aio.spawn(latest.newer_than(latest.version), name="waiting")
    await asyncio.sleep(0)
    latest.set("b")
    assert await waiting == 1
    assert latest.value == "b"


def test_backoff_doubles_up_to_its_last() -> None:
    backoff = aio.Backoff(first=5, last=300)
    assert [backoff.delay(n) for n in (1, 2, 3, 10, 10_000)] == [5, 10, 20, 300, 300]


async def test_whoever_waits_for_an_event_goes_on_once_it_is_set_and_not_after_it_was_cleared() -> None:
    event = aio.Event()
    waiting = [aio.spawn(event.wait(), name=f"waits {number}") for number in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    event.set()
    event.clear()  # who waited goes on all the same
    ended = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(ended[0], asyncio.CancelledError)
    assert ended[1:] == [None, None]
    late = aio.spawn(event.wait(), name="waits again")
    await asyncio.sleep(0)
    assert not late.done()
    event.set()
    await late
    await event.wait()  # at once
