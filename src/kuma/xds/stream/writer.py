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
    """Writes messages one after the other, and looks now and then whether the one under way is taken in time.

    A timer for each message would be set and taken back again for nearly all of them.
    """

    def __init__(
        self, write: Callable[[bytes], Awaitable[None]], seconds: float, give_up: Callable[[KumaError], None]
    ) -> None:
        """Calls `give_up` if a message has not been taken within `seconds`: the stream is to end."""
        self._write = write
        self._seconds = seconds
        self._give_up = give_up
        self._loop = asyncio.get_running_loop()  # which asks the operating system for the process, each time
        self._turn = asyncio.Lock()
        self._begun: float | None = None
        """When the message that is under way was begun."""
        self._look_again: asyncio.TimerHandle | None = None
        self._is_stuck = False

    async def send(self, message: bytes) -> None:
        """Send one message."""
        async with self._turn:
            self._begun = self._loop.time()
            if self._look_again is None:
                self._look_again = self._loop.call_later(self._seconds, self._look)
            await self._write(message)
            self._begun = None

    def _look(self) -> None:
        self._look_again = None
        if self._begun is None:
            return
        end = self._begun + self._seconds
        if self._loop.time() < end:
            self._look_again = self._loop.call_at(end, self._look)
            return
        self._is_stuck = True
        self._give_up(TooSlow(f"the proxy did not take a response within {self._seconds:g} seconds"))

    async def close(self) -> bool:
        """Send no more; False if a message is still under way, so that the stream takes no status either."""
        if self._look_again is not None:
            self._look_again.cancel()
        if self._is_stuck:
            return False
        try:
            async with asyncio.timeout(_LAST_WRITE):
                await self._turn.acquire()
        except TimeoutError:
            return False
        return True
