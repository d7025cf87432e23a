"""Collects the commits that one watcher has not been told yet."""

from __future__ import annotations

import asyncio
from collections import deque

from kuma.store.protocol import Commit


class Watcher:
    """Commits on their way to one watcher, which is given a new listing instead if it falls behind by more of them."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._commits: deque[Commit] = deque()
        self._pushed = asyncio.Event()
        self.overflown = False

    def push(self, commit: Commit) -> None:
        """Keep a commit for the watcher, unless it has fallen too far behind."""
        if len(self._commits) >= self._most:
            self.overflow()
        if not self.overflown:
            self._commits.append(commit)
        self._pushed.set()

    def overflow(self) -> None:
        """Some commits are lost for the watcher."""
        self.overflown = True
        self._commits.clear()
        self._pushed.set()

    def start_over(self) -> None:
        """Forgets what came before a new listing, which is on its way."""
        self._commits.clear()
        self.overflown = False

    async def next(self) -> Commit | None:
        """Returns the next commit; None if some were lost."""
        while not self._commits and not self.overflown:
            self._pushed.clear()
            await self._pushed.wait()
            await asyncio.sleep(0)  # whoever has committed goes on first: what follows may be work for thousands
        return None if self.overflown else self._commits.popleft()
