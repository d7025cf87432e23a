"""The objects that a controller has to look at: those that have changed, and those that it has failed at."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

from kuma.base import aio

T = TypeVar("T", bound=Hashable)


class Due(Generic[T]):
    """Has them wait for the controller, and those that it has failed at come again after a while."""

    def __init__(self, retry: aio.Backoff) -> None:
        self._retry = retry
        self._waiting: set[T] = set()
        self._failures: dict[T, int] = {}
        self._wake = asyncio.Event()

    def add(self, objects: Iterable[T]) -> None:
        """Has these looked at."""
        self._waiting.update(objects)
        self._wake.set()

    async def taken(self) -> set[T]:
        """Waits until there is something to look at, and returns all of it."""
        pause = min((self._retry.delay(count) for count in self._failures.values()), default=None)
        try:
            async with asyncio.timeout(pause):
                await self._wake.wait()
        except TimeoutError:
            self._waiting |= set(self._failures)
        self._wake.clear()
        taken, self._waiting = self._waiting, set()
        return taken

    def failed(self, one: T) -> int:
        """Has it looked at again later; returns how often in a row it has failed."""
        self._failures[one] = self._failures.get(one, 0) + 1
        return self._failures[one]

    def settled(self, one: T) -> None:
        """Forgets that it has failed."""
        self._failures.pop(one, None)
