"""Long work on the event loop, done in short turns: whoever else has something to do waits for one turn at most."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")

_LONGEST = 0.01
"""Seconds of a turn, after which the item at hand is finished."""


class Turns:
    """Shared by all that have long work to do: of all of them together one has its turn between two looks at sockets.

    They take turns in the order in which they come. Work that fits into one turn is done without a pause, unless
    others are waiting. Whatever thousands have to do that is short each, shares one turn, too.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        """`now` tells the seconds since some instant."""
        self._now = now
        self._turn = asyncio.Lock()
        self._end: float | None = None
        """When the turn ends that has begun since sockets were looked at last."""

    async def collect(self, work: Iterable[T]) -> list[T]:
        """Collects all that an iterable has which computes its items when it is asked for them."""
        found, items = list[T](), iter(work)
        while True:
            async with self._turn:
                if self._end_of_turn() <= self._now():
                    await asyncio.sleep(0)
                end = self._end_of_turn()
                for item in items:
                    found.append(item)
                    if self._now() >= end:
                        break
                else:
                    return found
            await asyncio.sleep(0)

    def _end_of_turn(self) -> float:
        if self._end is None:
            self._end = self._now() + _LONGEST
            asyncio.get_running_loop().call_soon(self._over)
        return self._end

    def _over(self) -> None:
        self._end = None
