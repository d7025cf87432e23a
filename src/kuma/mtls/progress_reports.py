"""Tells other control planes how far the proxies are that are connected here: one row a mesh, some times a second."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from kuma.base.clock import Clock
from kuma.base.errors import AlreadyExists, Conflict, NotFound, Unavailable
from kuma.coordination.coordination import Coordination
from kuma.resources import kinds
from kuma.resources.models.coordination import RolloutProgressSpec
from kuma.resources.resource import Key, Resource
from kuma.store.protocol import Create, Delete, Operation, Store, Update, find
from kuma.xds.proxies.connected_proxies import Proxies
from kuma.xds.proxies.meshes import Meshes
from kuma.xds.proxies.proxy import Proxy

_INTERVAL = 0.25
"""Seconds between two reports."""
_RETRY = 1.0


class ProgressReports:
    """Writes what `report` says of a mesh when it has changed."""

    def __init__(
        self,
        store: Store,
        meshes: Meshes,
        proxies: Proxies,
        clock: Clock,
        instance: str,
        report: Callable[[str, str], RolloutProgressSpec | None],
        coordination: Coordination,
    ) -> None:
        self._store = store
        self._clock = clock
        self._instance = instance
        self._report = report
        self._written: dict[Key, Resource[RolloutProgressSpec]] = {}
        self._due: set[str] = set()
        self._unsure: set[str] = set()
        """The meshes of which it is not known what is stored."""
        self._woken = asyncio.Event()
        meshes.on_change(self._changed)
        proxies.on_progress(self._progressed)
        coordination.on_change(self._say_if_changed)
        coordination.on_return(self._say_again)

    def _changed(self, meshes: Iterable[str]) -> None:
        self._due.update(meshes)
        self._woken.set()

    def _progressed(self, proxy: Proxy) -> None:
        self._changed((proxy.key.mesh,))

    def _say_if_changed(self) -> None:
        self._changed([resource.spec.mesh for resource in self._written.values()])

    def _say_again(self) -> None:
        """Take note that others may have removed what was written here."""
        self._unsure.update(resource.spec.mesh for resource in self._written.values())
        self._say_if_changed()

    async def run(self) -> None:
        """Report until cancelled."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            due, self._due = self._due, set()
            pause = _INTERVAL
            for mesh in sorted(due):
                try:
                    await self._write(mesh)
                except (Conflict, AlreadyExists, NotFound):
                    self._unsure.add(mesh)
                    self._changed((mesh,))
                except Unavailable:  # what was under way may have been stored
                    self._unsure.add(mesh)
                    self._changed((mesh,))
                    pause = _RETRY
            await self._clock.sleep(pause)

    async def _write(self, mesh: str) -> None:
        if mesh in self._unsure:
            await self._look(mesh)
        key, spec = self._key(mesh), self._report(mesh, self._instance)
        known = self._written.get(key)
        if spec is None:
            if known is not None:
                await self._store.transact([Delete(key)])
                del self._written[key]
            return
        if known is not None and known.spec == spec:
            return
        write: Operation = Update(known.with_spec(spec)) if known else Create(Resource(key, spec))
        (self._written[key],) = await self._store.transact([write])

    async def _look(self, mesh: str) -> None:
        """Look what is stored: others may have taken this process to be gone."""
        key = self._key(mesh)
        self._unsure.discard(mesh)
        stored = await find(self._store, key)
        if stored is None:
            self._written.pop(key, None)
        else:
            self._written[key] = stored

    def _key(self, mesh: str) -> Key:
        return kinds.ROLLOUT_PROGRESS.key(f"{self._instance}/{mesh}")
