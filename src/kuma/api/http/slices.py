"""What connections have sent and is not taken in yet: of all of one server together, a slice in each turn of the loop.

A slice may be a thousand chunks, or the next of many requests at once, and takes milliseconds. What is short, such as
the head of a request, has no part in this: it does not wait for those who send much.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable


class Slices:
    """Work that waits, in the order in which it came; of each owner one piece at most."""

    def __init__(self) -> None:
        self._waiting: dict[Hashable, Callable[[], None]] = {}
        self._next: asyncio.Handle | None = None

    def __contains__(self, owner: Hashable) -> bool:
        return owner in self._waiting

    def add(self, owner: Hashable, work: Callable[[], None]) -> None:
        """Have `work` done when everybody has had a turn who came before."""
        self._waiting[owner] = work
        self._go_on()

    def drop(self, owner: Hashable) -> None:
        """Forget what waits of an owner, if anything does."""
        self._waiting.pop(owner, None)

    def _go_on(self) -> None:
        if self._waiting and self._next is None:
            self._next = asyncio.get_running_loop().call_soon(self._one)

    def _one(self) -> None:
        self._next = None
        if self._waiting:
            work = self._waiting.pop(next(iter(self._waiting)))
            self._go_on()  # the loop looks at its sockets, and at all others, before it comes to the next
            work()
