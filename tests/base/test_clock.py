"""That the clock was set is noticed."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from structlog.testing import capture_logs

from kuma.base import aio
from kuma.base.clock import ClockWatch, SystemClock
from tests.fakes.clock import ManualClock
from tests.fakes.patience import PATIENCE


async def sleeps(clock: ManualClock) -> None:
    async with asyncio.timeout(PATIENCE):
        while not clock.sleepers:
            await asyncio.sleep(0)


async def test_a_clock_that_is_set_is_noticed_and_one_that_goes_is_not() -> None:
    clock = ManualClock()
    watch, jumps = ClockWatch(clock), list[timedelta]()
    watch.on_jump(jumps.append)
    task = aio.spawn(watch.run(), name="watch")
    with capture_logs() as logs:
        for jump in (0, 40 * 86400, 0, 1, -40 * 86400, 0):
            clock.jump(jump)
            await sleeps(clock)
            clock.advance(600)
            await sleeps(clock)
    await aio.stop([task])
    assert jumps == [timedelta(days=40), timedelta(days=-40, seconds=1)]
    assert [line["seconds"] for line in logs] == [40 * 86400.0, -40 * 86400.0 + 1]


def test_the_system_clock_goes_as_time_passes() -> None:
    watch = ClockWatch(SystemClock())
    watch.on_jump(lambda jumped: (_ for _ in ()).throw(AssertionError(jumped)))
    watch.look()
