"""Work for pages that takes long: in threads, and little of it at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

_AT_ONCE = 2
"""Threads that pages take, however many are looked at: the rest of the control plane has its work done by others."""
P = ParamSpec("P")
T = TypeVar("T")


class Work:
    """Has work done in threads; what comes while there is much waits for its turn."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def do(self, what: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Returns what a function returns."""
        async with self._turns:
            return await asyncio.to_thread(what, *args, **kwargs)
