"""Runs the guard beside an Envoy."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from urllib.parse import urlsplit

import structlog

from kuma.agent.contact import guard
from kuma.base.clock import Clock

log = structlog.get_logger(__name__)

_LATER = 5.0
"""Seconds by which the guard is more patient than kuma-dp, which ends Envoy by itself if it runs."""
_AGAIN = 1.0


async def guarded(envoy: int, admin: str, limit: float, drain: float, clock: Clock, child: Callable[[], None]) -> bool:
    """Runs the guard of the Envoy with the process id `envoy`, again if it fails; returns when Envoy has ended: whether
    the guard has ended it.

    `admin` is the address of Envoy's administration, `child` what the guard is to do before it begins. In seconds.
    """
    place = urlsplit(admin)
    given = (envoy, place.hostname, place.port, limit + _LATER, drain)
    while True:
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-S", guard.__file__, *map(str, given),
                stdin=asyncio.subprocess.DEVNULL, start_new_session=True, preexec_fn=child,
            )  # fmt: skip
        except OSError as error:
            log.warning("the guard of Envoy cannot be begun, and is tried again", reason=error.strerror)
            await clock.sleep(_AGAIN)
            continue
        try:
            status = await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if status in (0, guard.OUT_OF_CONTACT):
            return status == guard.OUT_OF_CONTACT
        log.warning("the guard of Envoy has ended, and is begun again", status=status)
        await clock.sleep(_AGAIN)
