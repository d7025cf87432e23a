"""Observes which proxies run a mesh's position, by their streams and by the mesh's Dataplanes.

Who of them is waited for, and for how long, `kuma.mtls.steps.progress` says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from weakref import WeakSet

from kuma.base.clock import Clock
from kuma.coordination.coordination import Coordination
from kuma.mtls.elsewhere import Elsewhere, Said
from kuma.mtls.steps.progress import ProxyProgress
from kuma.resources import kinds
from kuma.resources.models.coordination import Behind, RolloutProgressSpec
from kuma.resources.models.last_contact import LastContact
from kuma.resources.models.mesh_transition import Awaited, OutOfContact, Position
from kuma.resources.resource import Key
from kuma.resources.view import MeshView, changed_names
from kuma.xds.envoy.services import serving_label
from kuma.xds.proxies.connected_proxies import Proxies
from kuma.xds.proxies.meshes import Meshes
from kuma.xds.proxies.proxy import Proxy


@dataclass(slots=True)
class Rollout:
    """Progress of one mesh's rollout: its proxies, by the names of their Dataplanes."""

    position: Position
    proxies: dict[str, ProxyProgress] = field(default_factory=dict)
    behind: set[str] = field(default_factory=set)
    """The proxies that do not run the position."""
    restless: set[str] = field(default_factory=set)
    """Those, and the others that something may have to be decided about; see `unsettled`."""
    seen: Mapping[str, object] = field(default_factory=dict)
    """The Dataplanes as they were looked at last."""

    def progress_of(self, name: str, now: datetime) -> ProxyProgress:
        """Returns the progress of a proxy, which takes part from now on."""
        return self.proxies.setdefault(name, ProxyProgress(left=now))

    def go_to(self, position: Position, now: datetime) -> None:
        """Moves the mesh to another position."""
        self.position = position
        for name in self.proxies:
            self.count(name, now)

    def count(self, name: str, now: datetime) -> None:
        """Notes whether a proxy is behind, and since when."""
        progress = self.proxies[name]
        if progress.runs is self.position or progress.runs == self.position:
            self.behind.discard(name)
        else:
            self.behind.add(name)
            progress.has_something_to_do(now)
        if progress.is_quiet(self.position, now):
            self.restless.discard(name)
        else:
            self.restless.add(name)

    def unsettled(self, now: datetime) -> Mapping[str, ProxyProgress]:
        """Returns the proxies that there is something to decide about: all others are quiet."""
        self.restless = {n for n in self.restless if not self.proxies[n].is_quiet(self.position, now)}
        return {name: self.proxies[name] for name in self.restless}

    def give_up(self, unresponsive: Iterable[Awaited], now: datetime) -> None:
        """Restores which proxies had been given up when this was stored."""
        for awaited in unresponsive:
            since = awaited.since or now
            self.proxies[awaited.name] = ProxyProgress(left=since, since=since)
            self.behind.add(awaited.name)
            self.restless.add(awaited.name)

    def clock_jumped(self, by: timedelta) -> None:
        """Moves what is known of times along, so that nobody has been waited for any longer because of that."""
        for progress in self.proxies.values():
            progress.left += by
            progress.since = progress.since and progress.since + by
            progress.applied_at = progress.applied_at and progress.applied_at + by

    def drop(self, name: str) -> None:
        """Forgets a proxy whose Dataplane was deleted."""
        del self.proxies[name]
        self.behind.discard(name)
        self.restless.discard(name)

    def out_of_contact(self, names: Iterable[str]) -> tuple[OutOfContact, ...]:
        """Returns some of the proxies that are away, with what they may go on doing."""
        found = ((name, self.proxies[name].last_contact) for name in names)
        return tuple(OutOfContact(name=name, **dict(last)) for name, last in found if last is not None)

    def awaited(self, names: Iterable[str]) -> tuple[Awaited, ...]:
        """Returns some of the proxies that are waited for, as people are told of them."""
        found = ((name, self.proxies[name]) for name in names)
        return tuple(Awaited(name=name, since=f.since, absent=not f.connected) for name, f in found)


class Observer:
    """Observes the rollouts of all meshes."""

    def __init__(
        self,
        meshes: Meshes,
        proxies: Proxies,
        clock: Clock,
        coordination: Coordination,
    ) -> None:
        self._meshes = meshes
        self._proxies = proxies
        self._clock = clock
        self._elsewhere = Elsewhere(coordination)
        self._have_run: set[Key] = set()
        """The Dataplanes whose proxies have run something at some time."""
        self._last_contacts: dict[Key, LastContact] = {}
        """What they may go on doing, of those that were away before this process began."""
        self._streams: WeakSet[Proxy] = WeakSet()
        """The streams that have been noted."""

    def remember(self, have_run: Mapping[Key, LastContact | None]) -> None:
        """Restores which proxies have run something before this process began, because they may run it still."""
        self._have_run = set(have_run)
        self._last_contacts = {key: found for key, found in have_run.items() if found is not None}

    def take_stock(self, view: MeshView, rollout: Rollout) -> bool:
        """Counts the Dataplanes whose proxies run something, but not the ones that nobody has started yet.

        Returns whether a proxy takes part that did not before, or the other way round.
        """
        if view.dataplanes is rollout.seen:
            return False
        before, now = len(rollout.proxies), self._clock.now()
        complete = view.transition is not None and view.transition.spec.complete
        changed = changed_names(rollout.seen, view.dataplanes)
        known = changed if rollout.seen else rollout.proxies.keys()  # some may have been restored that are gone
        gone = [name for name in known if name in rollout.proxies and name not in view.dataplanes]
        for name in gone:
            rollout.drop(name)
            self._have_run.discard(kinds.DATAPLANE.key(name, view.name))
        for name in (changed & view.dataplanes.keys()) - rollout.seen.keys() - rollout.proxies.keys():
            key = kinds.DATAPLANE.key(name, view.name)
            if key in self._have_run:
                # What was complete is run by all; of anything else nothing is known until they are back.
                ended = serving_label.has_ended(view.dataplanes[name])
                rollout.proxies[name] = ProxyProgress(
                    left=now,
                    runs=rollout.position if complete else None,
                    last_contact=None if ended else self._last_contacts.pop(key, None),
                )
                rollout.count(name, now)
            if (proxy := self._proxies.get(key)) is not None:
                self.note(rollout, proxy)
            elif (said := self._elsewhere.of(view.name, name)) is not None:
                self._hear(rollout, key, said)
        rollout.seen = view.dataplanes
        return bool(gone) or len(rollout.proxies) != before

    def hear(self, view: MeshView, rollout: Rollout, instance: str) -> None:
        """Take in what another control plane says of its proxies."""
        now = self._clock.now()
        for name in self._elsewhere.hear(instance, view.name):
            key = kinds.DATAPLANE.key(name, view.name)
            if name not in view.dataplanes or key in self._proxies:
                continue
            said = self._elsewhere.of(view.name, name)
            if said is not None:
                self._hear(rollout, key, said)
            elif (progress := rollout.proxies.get(name)) is not None and progress.connected:
                progress.gone(now)
                rollout.count(name, now)

    def _hear(self, rollout: Rollout, key: Key, said: Said) -> None:
        now, progress = self._clock.now(), rollout.progress_of(key.name, self._clock.now())
        self._have_run.add(key)
        if not progress.connected:
            progress.joined(now)
        if said.unserved:
            progress.lacks_identity(now)
        elif said.runs is not None:
            position = said.runs
            progress.ran(rollout.position if position == rollout.position else position, now)
        else:
            progress.is_behind(rollout.position, now)
        rollout.count(key.name, now)

    def unheard(self, mesh: str, position: Position) -> frozenset[str]:
        """The other control planes that have not said yet that they are at a position, whatever proxies they have."""
        return self._elsewhere.not_at(mesh, position)

    def report(self, mesh: str, rollout: Rollout, instance: str) -> RolloutProgressSpec:
        """Returns what this control plane says of its proxies."""
        own = sorted(proxy.key.name for proxy in self._proxies if proxy.key.mesh == mesh)
        known = [(name, rollout.proxies[name]) for name in own if name in rollout.proxies]
        behind = [Behind(name=n, unserved=p.unserved) for n, p in known if n in rollout.behind or p.unserved]
        names = {one.name for one in behind}
        return RolloutProgressSpec(
            mesh=mesh,
            instance=instance,
            position=rollout.position,
            running=tuple(name for name, _ in known if name not in names),
            behind=tuple(behind),
        )

    def note(self, rollout: Rollout, proxy: Proxy) -> ProxyProgress:
        """Take in how a proxy is, and count it."""
        progress = self._noted(rollout, proxy)
        rollout.count(proxy.key.name, self._clock.now())
        return progress

    def _noted(self, rollout: Rollout, proxy: Proxy) -> ProxyProgress:
        now, key = self._clock.now(), proxy.key
        progress = rollout.progress_of(key.name, now)
        speaking = self._proxies.get(key)
        if speaking is not proxy:
            said = self._elsewhere.of(key.mesh, key.name)
            if said is not None:
                self._hear(rollout, key, said)
            elif speaking is None:
                progress.gone(now, proxy.last_contact)
            return progress
        if not progress.connected or proxy not in self._streams:
            self._streams.add(proxy)
            self._have_run.add(key)
            progress.joined(now)
        state = self._meshes.state(key.mesh)
        if proxy.is_unserved and not state.leaves_its_authority:
            progress.lacks_identity(now)
            return progress
        progress.is_served(now)
        # An authority that the mesh is leaving may fail for ever: whom it issues nothing to is not to wait for it.
        if proxy.converged or (proxy.is_unserved and proxy.has_acknowledged):
            position = state.config.view.position
            # The same object compares quickly.
            same = position is rollout.position or position == rollout.position
            progress.ran(rollout.position if same else position, now)
        else:
            progress.has_something_to_do(now)
        return progress
