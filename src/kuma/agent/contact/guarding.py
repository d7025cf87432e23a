"""Runs the guard beside an Envoy."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from asyncio.subprocess import Process
from collections.abc import Callable
from urllib.parse import urlsplit

import structlog

from kuma.agent.contact import guard
from kuma.base.clock import Clock

log = structlog.get_logger(__name__)

_LATER = 5.0
"""Seconds by which the guard is more patient than kuma-dp, which ends Envoy by itself if it runs."""
_AGAIN = 1.0


class Guarding:
    """Begins the guard before Envoy, so that at no moment Envoy serves without: it ends even if kuma-dp is stopped just
    then.

    `admin` is the address of Envoy's administration, `child` what the guard is to do before it begins; in seconds.
    """

    def __init__(self, admin: str, limit: float, drain: float, clock: Clock, child: Callable[[], None]) -> None:
        place = urlsplit(admin)
        self._given = (str(place.hostname), str(place.port), str(limit + _LATER), str(drain))
        self._clock = clock
        self._child = child
        self._telling = -1
        """Where the guard hears which process it guards; -1 once it does."""
        self._running: Process

    async def begin(self) -> None:
        """Begins a guard that waits to be told what it guards, and tries until it can be begun."""
        while True:
            try:
                return await self._begin()
            except OSError as error:
                log.warning("the guard of Envoy cannot be begun, and is tried again", reason=error.strerror)
                await self._clock.sleep(_AGAIN)

    async def _begin(self) -> None:
        hearing, self._telling = os.pipe()
        try:
            self._running = await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-S", guard.__file__, *self._given,
                stdin=hearing, start_new_session=True, preexec_fn=self._child,
            )  # fmt: skip
        except OSError:
            self._hang_up()
            raise
        finally:
            os.close(hearing)

    def tell(self, process: int) -> None:
        """Tells the guard which process it guards. The process that becomes Envoy does so itself, before."""
        os.write(self._telling, b"%d\n" % process)

    async def run(self, envoy: int) -> bool:
        """Watches the guard that was begun, and begins another if it fails; returns when Envoy, the process `envoy`,
        has ended: whether the guard has ended it.
        """
        while True:
            self._hang_up()
            status = await self._ended()
            if status in (0, guard.OUT_OF_CONTACT):
                return status == guard.OUT_OF_CONTACT
            log.warning("the guard of Envoy has ended, and is begun again", status=status)
            await self._clock.sleep(_AGAIN)
            await self.begin()
            with contextlib.suppress(BrokenPipeError):  # it has ended already, which is seen next
                self.tell(envoy)

    async def _ended(self) -> int:
        try:
            return await self._running.wait()
        finally:
            if self._running.returncode is None:
                self._running.kill()
                await self._running.wait()

    def _hang_up(self) -> None:
        """A guard that nobody has told anything ends."""
        os.close(self._telling)
        self._telling = -1
