"""Sending on one stream, within a bounded time.

gRPC takes one message at a time, and no status while one is under way ("too many operations"): a stream whose proxy
does not read can only be reset.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from kuma.base.errors import KumaError

_LAST_WRITE = 5.0
"""Seconds in which a message under way has to be taken once the stream is to end."""


class TooSlow(KumaError):
    """Raised when the proxy does not read what it is sent."""


class Sender:
    """Writes messages one after the other; after one that was not taken in time there is no other."""

    def __init__(self, write: Callable[[bytes], Awaitable[None]], seconds: float) -> None:
        self._write = write
        self._seconds = seconds
        self._turn = asyncio.Lock()
        self._stuck = False

    async def send(self, message: bytes) -> None:
        """Send one message.

        Raises:
            TooSlow: it was not taken in time.
        """
        async with self._turn:
            try:
                async with asyncio.timeout(self._seconds):
                    await self._write(message)
            except TimeoutError:
                self._stuck = True
                raise TooSlow(f"the proxy did not take a response within {self._seconds:g} seconds") from None

    async def close(self) -> bool:
        """Send no more; False if a message is still under way, so that the stream takes no status either."""
        try:
            async with asyncio.timeout(_LAST_WRITE):
                await self._turn.acquire()
        except TimeoutError:
            return False
        return not self._stuck
