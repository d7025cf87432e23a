"""Has leaves and open connections follow the permissions of a mesh, and has what is left behind end.

A permission is checked against the leaf that a connection was opened with. When a tag begins to matter, or a Dataplane
gets another tag or service, its leaf is replaced; but connections that are open, and Envoy keeps them open, still show
the old one: a refusal would not refuse them, nor an admission admit them. So when all proxies have taken up their new
leaves, the inbounds that this concerns are given another filter chain, and Envoy drains what the old one has accepted.
The permissions before decide meanwhile about whoever cannot show enough (`kuma.policy.succession`).
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from enum import Enum
from typing import NamedTuple

import structlog

from kuma.base.clock import Clock
from kuma.base.rounds import Rounds
from kuma.policy.permissions import Permissions
from kuma.policy.succession import Stage
from kuma.resources.models.dataplane import DataplaneSpec
from kuma.resources.resource import Resource
from kuma.resources.view import changed_names
from kuma.xds.envoy.node.workers import APPLIED_WITHIN
from kuma.xds.envoy.snapshot import SETTLED, MeshConfig
from kuma.xds.proxies.connected_proxies import Proxies
from kuma.xds.proxies.convergence import Convergence
from kuma.xds.proxies.elsewhere.noted_permissions import FormerPermissions
from kuma.xds.proxies.elsewhere.stored_leaves import StoredLeaves
from kuma.xds.proxies.meshes import Meshes
from kuma.xds.proxies.proxy import Proxy
from kuma.xds.proxies.renames import Renames

log = structlog.get_logger(__name__)

_RETRY = 1.0
"""Seconds after which what could not be stored is tried again."""


class _Wait(Enum):
    """Events that a stage waits for."""

    LEAVES = "all proxies have their new leaves"
    CONNECTIONS = "connections from before have ended"
    RULES = "all proxies run the new permissions alone"


class _Waiting(NamedTuple):
    wait: _Wait
    until: float
    """When it is over at the latest, in seconds of the clock that nobody sets."""
    acknowledged: bool = False
    """All proxies have acknowledged what is waited for; their worker threads have until then to apply it."""


class Drain:
    """Takes the stages of each mesh.

    A proxy that does not take up its leaf within `patience` is not waited for. `drain` is how long Envoys take to end
    what an old filter chain has accepted. Both in seconds.
    """

    def __init__(
        self,
        meshes: Meshes,
        proxies: Proxies,
        leaves: StoredLeaves,
        renames: Renames,
        former: FormerPermissions,
        clock: Clock,
        *,
        patience: float,
        drain: float,
    ) -> None:
        """`leaves` tells of proxies that are not connected here, or not yet; `former` what decided before a start."""
        self._meshes = meshes
        self._leaves = leaves
        self._proxies = proxies
        self._clock = clock
        self._patience, self._drain = patience, drain
        self._waiting: dict[str, _Waiting] = {}
        self._stages: dict[str, Stage] = {}
        self._convergence = Convergence(proxies)
        self._renames = renames
        self._former = former
        self._unproved: dict[str, frozenset[str]] = {}
        """Dataplanes that may be known by less than permissions look at, and are not here yet."""
        self._lacked: dict[str, frozenset[str]] = {}
        """Those of them when the mesh was taken up."""
        self._seen: dict[str, MeshConfig] = {}
        self._rounds = Rounds(clock, "patience with new leaves")
        meshes.on_change(self._changed)
        proxies.on_progress(self._progressed)

    async def run(self) -> None:
        """Watch until cancelled."""
        await self._rounds.run(self._look)

    async def _look(self) -> float | None:
        """Go on with what waits no longer; returns the seconds until patience with the next one ends."""
        stored = [await self._renames.store(), await self._former.store()]
        again = None if all(stored) else _RETRY
        for mesh, waiting in tuple(self._waiting.items()):
            now = self._clock.monotonic()
            if now >= waiting.until:
                self._go_on(mesh, waiting.wait)
            elif waiting.wait is not _Wait.CONNECTIONS and not waiting.acknowledged and self._have_converged(mesh):
                applied = min(waiting.until, now + APPLIED_WITHIN.total_seconds())
                self._waiting[mesh] = waiting._replace(until=applied, acknowledged=True)
        ends = [waiting.until - self._clock.monotonic() for waiting in self._waiting.values()]
        return min((*ends, again) if again is not None else ends, default=None)

    def _changed(self, meshes: frozenset[str]) -> None:
        for mesh in meshes:
            config = self._meshes.state(mesh).config
            if config.view.mesh is None:
                for known in (self._waiting, self._stages, self._unproved, self._lacked, self._seen):
                    known.pop(mesh, None)
                self._convergence.forget(mesh)
                self._renames.forget(mesh)
                self._former.end(mesh)
                continue
            before, self._seen[mesh] = self._seen.get(mesh), config
            self._count(before, config)
            is_changed = before is None or before.permissions is not config.permissions
            if is_changed:
                self._note(mesh, config, before)
            if before is None or not any(proxy.key.mesh == mesh for proxy in self._proxies):
                if is_changed:
                    self._begin(mesh, config, before)
                elif mesh not in self._unproved:
                    self._settle(mesh)
                continue
            stage = self._stages.get(mesh, SETTLED)
            if is_changed:
                stage = stage.begin(before.permissions, config.permissions)
            if stage != self._stages.get(mesh, SETTLED) or self._renames.of(mesh) != stage.renamed:
                self._go_to(mesh, stage)
                self._wait_for(mesh, _Wait.LEAVES, self._patience)

    def _count(self, before: MeshConfig | None, config: MeshConfig) -> None:
        """Counts Dataplanes that have got other names, here or at another control plane."""
        if before is not None and (services := _former_services(before, config)):
            self._renames.add(config.view, services)
        if self._renames.take_in(config.view):
            self._rounds.wake()

    def _note(self, mesh: str, config: MeshConfig, before: MeshConfig | None) -> None:
        """Keeps what is noted of the permissions before as long as somebody goes by them.

        Something may be noted that nobody has begun to go by: of a change that a webhook was asked about, and that was
        not made. It goes with the next change, or it would say one day that what was long ago had decided until then.
        """
        is_looked_at = bool(config.permissions.source_tags)
        if is_looked_at or before is not None:
            self._former.begin(mesh)
        if not is_looked_at:
            self._former.end(mesh)
            self._rounds.wake()

    def _begin(self, mesh: str, config: MeshConfig, before: MeshConfig | None) -> None:
        """Takes up a mesh none of whose proxies is here, as after a restart: those that come have their leaves from us.

        Until then they are known by the leaves that they have had from others, or from us before, and by the
        permissions before if these are known: by what is noted, or because we have seen them.
        """
        names = self._lacking(config, self._leaves.of(config.view))
        services = frozenset(s for name in names for s in config.view.dataplanes[name].spec.services[:1])
        if not services:
            self._settle(mesh)
            return
        self._unproved[mesh] = names
        if before is None:
            self._lacked[mesh] = names
        shown = config.permissions.source_tags
        stage = Stage(shown, self._renames.of(mesh), renamed_apart=self._renames.apart(mesh))
        decided = self._decided(mesh, config, before) if shown else None
        if decided is None:
            self._go_to(mesh, replace(stage, unproved=services))
        else:
            self._go_to(mesh, replace(stage, shown=decided.source_tags).begin(decided, config.permissions))
        self._wait_for(mesh, _Wait.LEAVES, self._patience)

    def _decided(self, mesh: str, config: MeshConfig, before: MeshConfig | None) -> Permissions | None:
        """Returns the permissions that decide about whoever cannot show what those of today look at, if it is known."""
        if before is None:
            return self._former.of(mesh, config.permissions)
        return self._stages.get(mesh, SETTLED).before or before.permissions

    def _lacking(self, config: MeshConfig, names: frozenset[str]) -> frozenset[str]:
        recent = timedelta(seconds=self._patience + self._drain)
        return self._leaves.lacking(config, names, self._clock.now(), recent)

    def _progressed(self, proxy: Proxy) -> None:
        if proxy.key.mesh in self._waiting:
            self._rounds.wake()

    def _have_converged(self, mesh: str) -> bool:
        if not self._convergence.of(mesh):
            return False
        if self._unproved.get(mesh):
            here = {proxy.key.name for proxy in self._proxies if proxy.key.mesh == mesh}
            self._unproved[mesh] = self._lacking(self._seen[mesh], self._unproved[mesh] - here)
        return not self._unproved.get(mesh)

    def _go_on(self, mesh: str, over: _Wait) -> None:
        stage = self._stages.get(mesh, SETTLED)
        if over is _Wait.LEAVES:
            if self._lacked.get(mesh) and self._has_other_leaves(mesh):
                # What was opened with those before is drained, too.
                self._renames.add(self._seen[mesh].view)
                self._rounds.wake()
            counted = self._renames.of(mesh), self._renames.apart(mesh)
            stage = stage.learned(self._seen[mesh].permissions, *counted)
        elif over is _Wait.CONNECTIONS:
            stage = replace(stage, before=None)
        if over is _Wait.LEAVES and (stage.before is not None or stage.unproved):
            self._go_to(mesh, stage)
            self._wait_for(mesh, _Wait.CONNECTIONS, self._drain)
        elif over is _Wait.CONNECTIONS and stage.carried:
            self._go_to(mesh, stage)
            self._wait_for(mesh, _Wait.RULES, self._patience)
        else:
            self._settle(mesh)

    def _has_other_leaves(self, mesh: str) -> bool:
        """Tells whether leaves have been replaced since we began; of who is still away nothing is gained by draining.

        Where permissions look at tags, somebody may have got one from another control plane.
        """
        lacked = self._lacked.get(mesh, frozenset())
        return bool(self._seen[mesh].permissions.source_tags) or any(
            proxy.key.name in lacked for proxy in self._proxies if proxy.key.mesh == mesh
        )

    def _wait_for(self, mesh: str, wait: _Wait, patience: float) -> None:
        self._waiting[mesh] = _Waiting(wait, self._clock.monotonic() + patience)
        self._rounds.wake()

    def _settle(self, mesh: str) -> None:
        self._waiting.pop(mesh, None)
        self._unproved.pop(mesh, None)
        self._lacked.pop(mesh, None)
        self._convergence.forget(mesh)
        self._former.end(mesh)
        self._rounds.wake()
        stage = Stage(renamed=self._renames.of(mesh), renamed_apart=self._renames.apart(mesh))
        self._go_to(mesh, stage.settled(self._seen[mesh].permissions))

    def _go_to(self, mesh: str, stage: Stage) -> None:
        if stage != self._stages.get(mesh, SETTLED):
            self._stages[mesh] = stage
            log.debug("connections follow the permissions", mesh=mesh, shown=sorted(stage.shown))
            self._meshes.go_to(mesh, stage)


def _former_services(before: MeshConfig, after: MeshConfig) -> frozenset[str]:
    """Returns the services until now of Dataplanes whose leaf is to say something else, of what both look at."""
    old, new = before.view.dataplanes, after.view.dataplanes
    edited = (name for name in changed_names(old, new) if name in old and name in new)
    renamed = (n for n in edited if _names(old[n], before.selected) != _names(new[n], before.selected))
    return frozenset(service for name in renamed for service in old[name].spec.services)


def _names(dataplane: Resource[DataplaneSpec], selected: frozenset[str]) -> object:
    tags = dataplane.spec.tag_values
    return dataplane.spec.services, [(tag, tags.get(tag)) for tag in sorted(selected)]
