"""Time as a collaborator, so that tests decide what it is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol

import structlog

log = structlog.get_logger(__name__)

_PERIOD = 2.0
"""Seconds between two looks at whether the clock was set."""
_JUMP = timedelta(seconds=2)
"""What is told of. NTP corrects less than that without anybody noticing."""


class Clock(Protocol):
    """Time, as far as components need it."""

    def now(self) -> datetime:
        """Returns the current instant, timezone-aware in UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds that have passed since some moment, whatever `now` is set to meanwhile."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds` have passed."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class ClockWatch:
    """Notices that the clock was set, or that the machine slept: the time of day is another than time has passed."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._started = self._difference()
        self._listeners: list[Callable[[timedelta], None]] = []

    def on_jump(self, listener: Callable[[timedelta], None]) -> None:
        """Calls `listener` with how far the clock has jumped: backward if that is negative."""
        self._listeners.append(listener)

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            await self._clock.sleep(_PERIOD)
            self.look()

    def look(self) -> None:
        """Looks now: for whoever is about to decide by the time of day."""
        jumped = self._difference() - self._started
        if abs(jumped) < _JUMP:
            return
        self._started += jumped
        log.warning("the clock has jumped", seconds=round(jumped.total_seconds(), 1), now=self._clock.now().isoformat())
        for listener in self._listeners:
            listener(jumped)

    def _difference(self) -> timedelta:
        return self._clock.now() - _EPOCH - timedelta(seconds=self._clock.monotonic())


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
