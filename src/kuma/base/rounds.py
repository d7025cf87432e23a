"""Work that is done when something has happened, and when its time has come, whichever is first."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from kuma.base import aio
from kuma.base.clock import Clock


class Rounds:
    """Runs rounds one after the other. A wake-up during a round begins another; several between two begin one."""

    def __init__(self, clock: Clock, name: str) -> None:
        self._clock = clock
        self._name = name
        self._woken = aio.Event()

    def wake(self) -> None:
        """Asks for another round."""
        self._woken.set()

    async def run(self, work: Callable[[], Awaitable[float | None]]) -> None:
        """Do `work` now and again until cancelled.

        It returns the seconds after which to do it again although nothing has happened, None for never.
        """
        while True:
            self._woken.clear()
            await self._woken_or_after(await work())

    async def _woken_or_after(self, seconds: float | None) -> None:
        timer = None if seconds is None else aio.spawn(self._wake_after(seconds), name=self._name)
        try:
            await self._woken.wait()
        finally:
            if timer is not None:
                await aio.stop([timer])

    async def _wake_after(self, seconds: float) -> None:
        await self._clock.sleep(seconds)
        self.wake()
