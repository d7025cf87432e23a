"""Follows what other control planes say of themselves, and notices that one says nothing any more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog

from kuma.base.clock import Clock
from kuma.coordination.coordination import Instance
from kuma.resources import kinds
from kuma.resources.models.coordination import InstanceSpec, LeaseSpec, RolloutProgressSpec
from kuma.resources.resource import Key, Resource
from kuma.store.protocol import Commit, Expect, Listing, Put, Removed, Store

log = structlog.get_logger(__name__)

LEADER = kinds.LEASE.key("leader")
EXPIRY = 10.0
"""Seconds without a word after which an instance is taken to be gone. Measured here: no two clocks are compared."""


@dataclass(frozen=True, slots=True)
class _Heard:
    resource: Resource[InstanceSpec]
    since: float
    """When this version was seen first, in monotonic seconds."""
    received: datetime


class Peers:
    """Implements `Coordination` from what is stored. `own` is the name of this instance."""

    def __init__(self, store: Store, clock: Clock, own: str) -> None:
        self._store = store
        self._clock = clock
        self.own = own
        self._instances: dict[str, _Heard] = {}
        self.lease: Resource[LeaseSpec] | None = None
        self._progress: dict[tuple[str, str], RolloutProgressSpec] = {}
        self._connected: dict[tuple[str, str], frozenset[str]] = {}
        self._there: frozenset[str] = frozenset()
        self._known: frozenset[str] = frozenset()
        """The instances of which something was stored when `look` was called last."""
        self._led = False
        self._said = clock.monotonic()
        """When this instance has last said that it is there."""
        self._on_progress: list[Callable[[str, str], None]] = []
        self._on_change: list[Callable[[], None]] = []
        self._on_return: list[Callable[[], None]] = []
        self._listed = asyncio.Event()

    async def run(self) -> None:
        """Follow until cancelled."""
        async for event in self._store.watch():
            self._take(event)
            self.look()
            self._listed.set()

    def _take(self, event: Listing | Commit) -> None:
        if isinstance(event, Commit):
            for change in event.changes:
                self._put(change.resource) if isinstance(change, Put) else self._removed(change)
            return
        before = {*(kinds.INSTANCE.key(name) for name in self._instances), *map(_row, self._progress), LEADER}
        for resource in event.resources:
            before.discard(resource.key)
            self._put(resource)
        for key in before:
            self._removed(Removed(key))

    def _put(self, resource: Resource[Any]) -> None:
        key = resource.key
        if key.kind == kinds.INSTANCE.name:
            known = self._instances.get(key.name)
            if known is None or known.resource.version != resource.version:
                self._instances[key.name] = _Heard(resource, self._clock.monotonic(), self._clock.now())
        elif key == LEADER:
            self.lease = resource
        elif key.kind == kinds.ROLLOUT_PROGRESS.name and resource.spec.instance != self.own:
            spec: RolloutProgressSpec = resource.spec
            self._progress[spec.instance, spec.mesh] = spec
            self._connected[spec.instance, spec.mesh] = frozenset((*spec.running, *(one.name for one in spec.behind)))
            self._tell_progress(spec.instance, spec.mesh)

    def _removed(self, removed: Removed) -> None:
        key = removed.key
        if key.kind == kinds.INSTANCE.name:
            self._instances.pop(key.name, None)
        elif key == LEADER:
            self.lease = None
        elif key.kind == kinds.ROLLOUT_PROGRESS.name:
            instance, _, mesh = key.name.partition("/")
            if self._progress.pop((instance, mesh), None) is not None:
                del self._connected[instance, mesh]
                self._tell_progress(instance, mesh)

    def look(self) -> None:
        """Look who is there and who leads, and tell of what has changed."""
        now = self._clock.monotonic()
        there = frozenset(name for name, heard in self._instances.items() if now - heard.since <= EXPIRY)
        came, gone = there - self._there - {self.own}, self._there - there - {self.own}
        removed = self._known - self._instances.keys() - {self.own}
        self._there, self._known = there, frozenset(self._instances)
        for name in sorted(gone):
            log.warning("a control plane has left, or says nothing any more", instance=name)
        for instance, mesh in [key for key in self._progress if key[0] in came | gone]:
            self._tell_progress(instance, mesh)
        began, self._led = self.leads and not self._led, self.leads
        if gone or removed or began:
            for listener in self._on_change:
                listener()

    def _tell_progress(self, instance: str, mesh: str) -> None:
        for listener in self._on_progress:
            listener(instance, mesh)

    async def known(self) -> None:
        await self._listed.wait()

    def said(self) -> None:
        """Notes that this instance has just said that it is there."""
        self._said = self._clock.monotonic()

    def silent_for(self) -> float:
        return self._clock.monotonic() - self._said

    def addresses(self) -> Sequence[str]:
        """Returns where the others are, or were when something was last heard of them."""
        heard = (heard.resource.spec.address for name, heard in self._instances.items() if name != self.own)
        return sorted({address for address in heard if address})

    @property
    def leads(self) -> bool:
        return self.lease is not None and self.lease.spec.holder == self.own

    def guard(self) -> tuple[Expect, ...]:
        """The lease as it is known, and the silence of those that are taken to be gone.

        Whoever follows the store no more, but still writes to it, would take all others to be gone.
        """
        lease = (Expect(LEADER, self.lease.version),) if self.lease is not None else ()
        silent = sorted(self._instances.keys() - self._there - {self.own})
        return (*lease, *(Expect(kinds.INSTANCE.key(name), self.version_of(name)) for name in silent))

    def absence(self, instance: str) -> tuple[Expect, ...] | None:
        if instance == self.own or instance in self._instances:
            return None
        return (Expect(kinds.INSTANCE.key(instance), 0),)

    def instances(self) -> Sequence[Instance]:
        holder = self.lease.spec.holder if self.lease else ""
        return [
            Instance(name, heard.resource.spec, name == holder, heard.received)
            for name, heard in sorted(self._instances.items())
            if name in self._there
        ]

    def others(self) -> frozenset[str]:
        return self._there - {self.own}

    def has(self, dataplane: Key) -> bool:
        return any(
            dataplane.name in names
            for (instance, mesh), names in self._connected.items()
            if mesh == dataplane.mesh and instance in self._there
        )

    def progress(self) -> Mapping[tuple[str, str], RolloutProgressSpec]:
        return {key: spec for key, spec in self._progress.items() if key[0] in self._there}

    def on_progress(self, listener: Callable[[str, str], None]) -> None:
        self._on_progress.append(listener)

    def on_change(self, listener: Callable[[], None]) -> None:
        self._on_change.append(listener)

    def on_return(self, listener: Callable[[], None]) -> None:
        self._on_return.append(listener)

    def returned(self) -> None:
        """Tell that this instance says again that it is there, after others had taken it to be gone."""
        log.warning("this control plane was taken to be gone by others: it says anew what it knows", instance=self.own)
        for listener in self._on_return:
            listener()

    def version_of(self, instance: str) -> int:
        """The version of what an instance has said last; 0 if nothing is stored of it."""
        heard = self._instances.get(instance)
        return heard.resource.version if heard else 0

    def gone(self) -> Sequence[str]:
        """The instances of which something is stored, and which are not there."""
        known = {*self._instances, *(instance for instance, _ in self._progress)}
        return sorted(known - self._there - {self.own})

    def rows_of(self, instance: str) -> Sequence[Key]:
        """Returns what is stored of the progress of an instance."""
        return [_row(key) for key in self._progress if key[0] == instance]


def _row(key: tuple[str, str]) -> Key:
    return kinds.ROLLOUT_PROGRESS.key("/".join(key))
