"""Follows what other processes commit: told by the database, never asked for again and again."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kuma.base.aio import Backoff
from kuma.base.clock import Clock
from kuma.base.errors import StoreCorrupt, Unavailable
from kuma.base.rounds import Rounds
from kuma.store.sql.dialect import reason

log = structlog.get_logger(__name__)

CHANNEL = "kuma_changes"
"""What the database calls its listeners by."""
_HEARTBEAT = 5.0
"""Seconds after which a silent connection is looked at: one that is cut off tells nothing."""
_PAUSES = Backoff(first=0.1, last=2.0)
_ANSWER = 10.0
"""Seconds that it may take to answer."""


class Follower:
    """Listens on one connection. A connection that is lost is replaced, and what was missed is read from the log."""

    def __init__(
        self,
        engine: AsyncEngine,
        clock: Clock,
        errors: tuple[type[Exception], ...],
        catch_up: Callable[[], Awaitable[None]],
        tell: Callable[[str], None],
    ) -> None:
        """`tell` is told why the database cannot be used, or nothing when it can; `errors` are those of a lost one."""
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._clock = clock
        self._errors: tuple[type[Exception], ...] = (*errors, Unavailable, StoreCorrupt)
        self._catch_up = catch_up
        self._tell = tell
        self._rounds = Rounds(clock, "heartbeat of the store")
        self._failures = 0

    def look(self) -> None:
        """Asks for a look now."""
        self._rounds.wake()

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            try:
                async with self._listening() as connection:
                    await self._rounds.run(functools.partial(self._round, connection))
            except self._errors as error:
                self._failures += 1
                self._tell(reason(error))
                if self._failures == 1:
                    log.warning("the store cannot be followed: it is tried again", reason=reason(error))
                await self._clock.sleep(_PAUSES.delay(self._failures))

    @asynccontextmanager
    async def _listening(self) -> AsyncIterator[AsyncConnection]:
        async with self._engine.connect() as connection:
            driver: Any = (await connection.get_raw_connection()).driver_connection
            driver.add_termination_listener(self._called)
            try:
                await driver.add_listener(CHANNEL, self._called)
                yield connection
            finally:
                driver.remove_termination_listener(self._called)
                await connection.invalidate()  # it listens: nobody else is to have it

    def _called(self, *_: object) -> None:
        self._rounds.wake()

    async def _round(self, connection: AsyncConnection) -> float:
        async with asyncio.timeout(_ANSWER):
            await connection.execute(sa.select(1))
        await self._catch_up()
        if self._failures:
            log.info("the store can be used again")
        self._failures = 0
        self._tell("")
        return _HEARTBEAT
