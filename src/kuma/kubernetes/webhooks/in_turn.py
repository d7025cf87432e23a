"""Has changes of the permissions of a guarded mesh judged in turn: the next one once the last is stored.

The API server stores what a webhook has admitted a moment later. What is judged meanwhile is judged by what will not be
there any more: so two changes at once might weaken a mesh that refuses that.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from weakref import WeakValueDictionary

from kuma.resources.models.mesh import weakening_is_refused
from kuma.resources.resource import Key
from kuma.store.manager import JUDGED_TOGETHER
from kuma.store.views import Views

_LONGEST = 2.0
"""Seconds until a change that was admitted is taken not to come: somebody else has refused it. Less than the API server
waits for a webhook."""


class InTurn:
    """The changes of this process: another control plane may be asked at the same time."""

    def __init__(self, views: Views, *, guarded: bool, longest: float = _LONGEST) -> None:
        """`guarded` is whether meshes that do not say so refuse what weakens them."""
        self._views = views
        self._guarded = guarded
        self._longest = longest
        self._turns = WeakValueDictionary[str, asyncio.Lock]()
        self._last: dict[str, tuple[Key, object]] = {}
        """By mesh, what was admitted last, with what was there before it."""

    @contextlib.asynccontextmanager
    async def turn(self, key: Key) -> AsyncIterator[None]:
        """Surrounds the judgement of a change that is to be stored, which is refused by raising."""
        if key.kind not in JUDGED_TOGETHER or not self._is_guarded(key.mesh):
            yield
            return
        async with self._turns.setdefault(key.mesh, asyncio.Lock()):
            await self._last_is_stored(key.mesh)
            before = self._views.view(key.mesh).find(key)
            yield
            self._last[key.mesh] = key, before

    def _is_guarded(self, mesh: str) -> bool:
        found = self._views.view(mesh).mesh
        return found is not None and weakening_is_refused(found.labels, self._guarded)

    async def _last_is_stored(self, mesh: str) -> None:
        if mesh not in self._last:
            return
        key, before = self._last.pop(mesh)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._longest):
                await self._views.until(lambda: self._views.view(mesh).find(key) is not before)
