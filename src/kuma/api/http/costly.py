"""Turns for what costs much: few at once, in all and of one user, so that everybody else is answered meanwhile.

Whoever is anonymous counts as one user together with all others who are.
"""

from __future__ import annotations

import asyncio
import functools
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from kuma.api.http.errors import Problem
from kuma.base.audit import ACTOR

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TurnLimits:
    """How many have a turn at once, and how many wait for one; in all, and of one user."""

    at_once: int = 4
    """Fewer than there are threads for all (at least five, see `concurrent.futures`): others need some, too."""
    each: int = 2
    waiting: int = 128
    waiting_each: int = 32


class CostlyRequests:
    """Gives turns to users in rotation: whoever asks for much waits for what they asked for themselves."""

    def __init__(self, limits: TurnLimits | None = None, refused: Callable[[], None] = lambda: None) -> None:
        """`refused` is called for each request that may not even wait."""
        self._limits = limits or TurnLimits()
        self._refused = refused
        self._running = Counter[str]()
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        """By user; whose turn is next comes first."""

    @property
    def running(self) -> int:
        """Returns how many have their turn."""
        return self._running.total()

    @property
    def waiting(self) -> int:
        """Returns how many wait for theirs."""
        return sum(map(len, self._waiting.values()))

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Waits for a turn of whoever asks (see `ACTOR`), and has it until the end of the block.

        Raises:
            Problem: too many are waiting: 429 if they are the same user's, else 503.
        """
        user = ACTOR.get()
        await self._take(user)
        try:
            yield
        finally:
            self._end(user)

    async def do(self, what: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Returns what a function returns, which is called in a thread when there is a turn; see `turn`."""
        async with self.turn():
            return await asyncio.to_thread(what, *args, **kwargs)

    def in_turn(self, answer: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
        """Returns what answers a request in a turn as a whole. Nothing that it waits for may be up to its sender."""

        @functools.wraps(answer)
        async def answered(*args: P.args, **kwargs: P.kwargs) -> T:
            async with self.turn():
                return await answer(*args, **kwargs)

        return answered

    async def _take(self, user: str) -> None:
        if self._may_run(user) and user not in self._waiting:
            self._running[user] += 1
            return
        if len(self._waiting.get(user, ())) >= self._limits.waiting_each:
            self._refused()
            raise Problem(429, "Too Many Requests", f"{_BUSY} that you have asked for; try again when they are done")
        if self.waiting >= self._limits.waiting:
            self._refused()
            raise Problem(503, "Service unavailable", f"{_BUSY} that others have asked for; try again in a moment")
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(user, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._forget(user, turn)
            else:  # it has come in the same moment
                self._end(user)
            raise

    def _end(self, user: str) -> None:
        self._running[user] -= 1
        if not self._running[user]:
            del self._running[user]
        while (following := next(filter(self._may_run, self._waiting), None)) is not None:
            turn = self._waiting[following][0]
            self._forget(following, turn)
            if turn.cancelled():  # in this moment: whoever waited for it has yet to hear that
                continue
            if following in self._waiting:  # with what else they wait for they come after all others
                self._waiting[following] = self._waiting.pop(following)
            self._running[following] += 1
            turn.set_result(None)
            return

    def _may_run(self, user: str) -> bool:
        return self.running < self._limits.at_once and self._running[user] < self._limits.each

    def _forget(self, user: str, turn: asyncio.Future[None]) -> None:
        if turn not in self._waiting.get(user, ()):
            return  # it was passed over already
        self._waiting[user].remove(turn)
        if not self._waiting[user]:
            del self._waiting[user]


_BUSY = "the control plane is busy with costly requests"
