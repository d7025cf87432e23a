"""Drains connections that were made with leaves from before a change of the tags that permissions select by.

A permission is checked against the leaf that a connection was opened with. When a tag begins to matter, or a Dataplane
gets another tag or service, its leaf is replaced; but connections that are open, and Envoy keeps them open, still show
the old one: a refusal would not refuse them, nor an admission admit them. So when all proxies have taken up their new
leaves, the inbounds that this concerns are given another filter chain, and Envoy drains what the old one has accepted.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

import structlog

from kuma.base.clock import Clock
from kuma.base.rounds import Rounds
from kuma.resources.dataplane import DataplaneSpec
from kuma.resources.resource import Resource
from kuma.store.views import Views
from kuma.xds.envoy.snapshot import FIRST_EPOCH, DrainEpoch, MeshConfig
from kuma.xds.proxies.meshes import Meshes
from kuma.xds.proxies.proxy import Proxies, Proxy

log = structlog.get_logger(__name__)


class _Pending(NamedTuple):
    wanted: DrainEpoch
    since: datetime


class Drain:
    """Waits for the leaves of each mesh; a proxy that does not take its own up within `patience` is not waited for."""

    def __init__(self, views: Views, meshes: Meshes, proxies: Proxies, clock: Clock, *, patience: float) -> None:
        self._meshes = meshes
        self._proxies = proxies
        self._clock = clock
        self._patience = timedelta(seconds=patience)
        self._pending: dict[str, _Pending] = {}
        self._done: dict[str, DrainEpoch] = {}
        self._changes: dict[str, int] = {}
        self._seen: dict[str, MeshConfig] = {}
        self._rounds = Rounds(clock, "patience with new leaves")
        views.on_change(self._changed)
        proxies.on_progress(self._progressed)

    async def run(self) -> None:
        """Watch until cancelled."""
        await self._rounds.run(self._look)

    async def _look(self) -> float | None:
        """Finish what waits no longer; returns the seconds until patience with the next one ends."""
        for mesh, pending in tuple(self._pending.items()):
            if self._clock.now() >= pending.since + self._patience or self._have_new_leaves(mesh):
                self._finish(mesh, pending.wanted)
        if not self._pending:
            return None
        first = min(pending.since for pending in self._pending.values())
        return (first + self._patience - self._clock.now()).total_seconds()

    def _changed(self, meshes: frozenset[str]) -> None:
        for mesh in meshes:
            config = self._meshes.state(mesh).config
            if config.view.mesh is None:
                for known in (self._pending, self._done, self._changes, self._seen):
                    known.pop(mesh, None)
                continue
            before, self._seen[mesh] = self._seen.get(mesh), config
            if before is not None and _has_another_name(before, config):
                self._changes[mesh] = self._changes.get(mesh, 0) + 1
            wanted = DrainEpoch(config.selected, self._changes.get(mesh, 0))
            if wanted == self._done.get(mesh, FIRST_EPOCH):
                self._pending.pop(mesh, None)
            elif not any(proxy.key.mesh == mesh for proxy in self._proxies):
                self._finish(mesh, wanted)  # as after a restart: those that come back have their leaves from us
            elif mesh not in self._pending or self._pending[mesh].wanted != wanted:
                self._pending[mesh] = _Pending(wanted, self._clock.now())
                self._rounds.wake()

    def _progressed(self, proxy: Proxy) -> None:
        if proxy.key.mesh in self._pending:
            self._rounds.wake()

    def _have_new_leaves(self, mesh: str) -> bool:
        return all(proxy.converged for proxy in self._proxies if proxy.key.mesh == mesh)

    def _finish(self, mesh: str, wanted: DrainEpoch) -> None:
        self._pending.pop(mesh, None)
        self._done[mesh] = wanted
        log.debug("connections from before are drained", mesh=mesh)
        self._meshes.drain(mesh, wanted)


def _has_another_name(before: MeshConfig, after: MeshConfig) -> bool:
    """Tells whether the leaf of an existing Dataplane says something else now, of the tags that both select by."""
    old, new = before.view.dataplanes, after.view.dataplanes
    if old is new:
        return False
    edited = (name for name, dataplane in new.items() if name in old and old[name] is not dataplane)
    return any(_names(old[name], before.selected) != _names(new[name], before.selected) for name in edited)


def _names(dataplane: Resource[DataplaneSpec], selected: frozenset[str]) -> object:
    tags = dataplane.spec.tag_values
    return dataplane.spec.services, [(tag, tags.get(tag)) for tag in sorted(selected)]
