"""The only way to change resources: validates, applies each kind's admission rules, and commits in one transaction."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol
from weakref import WeakValueDictionary

import structlog

from kuma.base.errors import AlreadyExists, Conflict, InvalidResource, NotFound, Violation, WeakeningRefused
from kuma.resources import keys, kinds
from kuma.resources.kinds import MESH
from kuma.resources.labels import REGISTERED
from kuma.resources.resource import Key
from kuma.store.protocol import (
    AnyResource,
    Check,
    Create,
    Delete,
    Expect,
    Operation,
    Page,
    StillOwns,
    Store,
    Update,
    find,
)
from kuma.store.rehearsal import Rehearsal

log = structlog.get_logger(__name__)

_ATTEMPTS = 30
_LONGEST_PAUSE = 0.2


@dataclass(frozen=True, slots=True)
class Decision:
    """Decision to admit a change: further operations of the same transaction, and warnings for the user."""

    operations: tuple[Operation, ...] = ()
    warnings: tuple[str, ...] = ()
    absences: tuple[str, ...] = ()
    """Further warnings, about what is not there yet: they may be untrue when the next resource has been stored."""
    staged: bool = False
    """Whether a staged change of mutual TLS follows."""
    weakens: tuple[Violation, ...] = ()
    """What the change takes away of what protects the mesh: fields, and consequences."""
    guarded: bool = False
    """Whether what weakens is refused, unless it is asked for."""


class Rules(Protocol):
    """Admission rules of one kind beyond its own validation. Refuse by raising `InvalidResource`."""

    async def on_put(self, old: AnyResource | None, new: AnyResource, store: Store) -> Decision:
        """Judge the creation (`old` is None) or replacement of a resource."""
        ...

    async def on_delete(self, old: AnyResource, store: Store) -> Decision:
        """Judge a deletion."""
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of a put. `created` is False for a replacement and for content that was there already."""

    resource: AnyResource
    created: bool
    warnings: tuple[str, ...] = ()
    staged: bool = False
    weakens: tuple[str, ...] = ()
    """Those of the warnings that say what it has taken away."""
    absences: tuple[str, ...] = ()
    """Those of the warnings that are about what is not there yet."""


@dataclass(frozen=True, slots=True)
class Deletion:
    """Result of a deletion: what its user is told, and which of it says what it has taken away."""

    warnings: tuple[str, ...] = ()
    weakens: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Judged:
    """A resource that is admitted: as it is meant, what is decided with it, and what its user is told."""

    resource: AnyResource
    decision: Decision
    warnings: tuple[str, ...]
    weakens: tuple[str, ...]
    """Those of the warnings that say what it takes away."""


class ResourceManager:
    """Reads, and changes that keep every rule. `rules` has an entry for each kind that has some."""

    def __init__(self, store: Store, rules: Mapping[str, Rules], *, strict: bool = False, tells: bool = True) -> None:
        self.store = store
        self._tells = tells
        """Whether warnings are logged."""
        self._rules = rules
        self._strict = strict
        """Whether to refuse what would be taken with a warning because it has no effect here."""
        self._turns = WeakValueDictionary[Key, asyncio.Lock]()
        """Who changes something, so that those of this process do not get in each other's way; see `_of_whole`."""

    def rehearsal(self) -> ResourceManager:
        """Returns a manager that judges everything as this one would, and stores nothing."""
        return ResourceManager(Rehearsal(self.store), self._rules, strict=self._strict, tells=False)

    async def get(self, key: Key) -> AnyResource:
        """The resource; see `Store.get`."""
        return await self.store.get(key)

    async def find(self, key: Key) -> AnyResource | None:
        """The resource, or None if there is none."""
        return await find(self.store, key)

    async def list(
        self, kind: str, mesh: str | None = None, *, name_contains: str = "", offset: int = 0, limit: int | None = None
    ) -> Page:
        """A page of resources; see `Store.list`."""
        return await self.store.list(kind, mesh, name_contains=name_contains, offset=offset, limit=limit)

    async def put(self, resource: AnyResource, *, strict: bool = False, allow_weakening: bool = False) -> Outcome:
        """Create or replace, whatever is stored; see `change`."""
        return await self.change(
            resource.key, lambda stored: _declared(resource, stored), strict=strict, allow_weakening=allow_weakening
        )

    async def change(
        self,
        key: Key,
        make: Callable[[AnyResource | None], AnyResource],
        *,
        strict: bool = False,
        allow_weakening: bool = False,
        seems_new: bool = False,
    ) -> Outcome:
        """Create or replace with what `make` makes of what is stored, if it does not refuse by raising.

        `strict` refuses what has no effect here instead of telling of it.

        What `seems_new` is created without a look at what is stored, and only looked at if it turns out to be there.

        `allow_weakening` makes it also if it weakens a mesh that is guarded.

        What it has been shown is what is replaced, and nothing else. What is stored already is not written again.

        Raises:
            InvalidResource: a rule is broken, or the mesh does not exist; nothing was changed.
            Conflict: others kept changing the same resource.
        """
        keys.check(key)
        async with self._turn(key):
            for attempt in range(_ATTEMPTS):
                try:
                    old = None if seems_new and attempt == 0 else await self.find(key)
                    outcome = await self._put(old, key, make, strict, allow_weakening)
                except (Conflict, AlreadyExists):
                    await _pause(attempt)  # somebody was faster: look again, judge again
                    continue
                self._log(key, outcome.warnings)
                return outcome
        raise Conflict(f"{key} is being changed by others all the time; try again")

    async def _put(
        self,
        old: AnyResource | None,
        key: Key,
        make: Callable[[AnyResource | None], AnyResource],
        strict: bool,
        allow_weakening: bool,
    ) -> Outcome:
        kind = kinds.by_name(key.kind)
        judged = await self.judge(old, make(old), strict=strict, allow_weakening=allow_weakening)
        resource, operations = judged.resource, judged.decision.operations
        checks = [operation for operation in operations if isinstance(operation, Check)]
        same = old is not None and old.spec == resource.spec and dict(old.labels) == dict(resource.labels)
        if old is not None and same and len(checks) == len(operations):
            return Outcome(old, created=False, warnings=judged.warnings, absences=judged.decision.absences)
        owner = kinds.MESH.key(resource.mesh) if kind.in_mesh else None
        write: Operation = Update(replace(resource, version=old.version)) if old else Create(resource, owner)
        try:
            others = [operation for operation in operations if not isinstance(operation, Check)]
            stored, *_ = await self.store.transact([*checks, write, *others])
        except NotFound:
            raise missing_mesh(resource.mesh) from None
        decision = judged.decision
        return Outcome(stored, old is None, judged.warnings, decision.staged, judged.weakens, decision.absences)

    async def judge(
        self, old: AnyResource | None, new: AnyResource, *, strict: bool = False, allow_weakening: bool = False
    ) -> Judged:
        """Judges the creation (`old` is None) or replacement of a resource, and changes nothing; see `change`.

        Raises:
            InvalidResource: a rule is broken.
        """
        kind = kinds.by_name(new.key.kind)
        resource = new.with_spec(kind.meant(new.spec, old.spec if old else None))
        not_done = tuple(kind.not_done(resource.spec))
        if (strict or self._strict) and not_done:
            raise InvalidResource(not_done)
        decision = await self._decide(old, resource)
        weakens = _weakening(decision, allow_weakening)
        told = (*kind.warnings(resource.spec), *decision.warnings, *decision.absences)
        warnings = (*weakens, *map(str, not_done), *told)
        return Judged(resource, decision, warnings, weakens)

    async def judge_deletion(self, old: AnyResource, *, allow_weakening: bool = False) -> tuple[Decision, Deletion]:
        """Judges the deletion of a resource, and changes nothing; returns also what is told of it. See `delete`.

        Raises:
            InvalidResource: a rule forbids it.
        """
        rules = self._rules.get(old.key.kind)
        decision = await rules.on_delete(old, self.store) if rules else Decision()
        if old.key.kind == MESH.name and (await self.store.list(kinds.DATAPLANE.name, old.name, limit=1)).total:
            raise _still_attached()
        weakens = _weakening(decision, allow_weakening)
        return decision, Deletion((*weakens, *decision.warnings), weakens)

    async def _decide(self, old: AnyResource | None, new: AnyResource) -> Decision:
        rules = self._rules.get(new.key.kind)
        return await rules.on_put(old, new, self.store) if rules else Decision()

    async def delete(self, key: Key, *, allow_weakening: bool = False) -> Deletion:
        """Delete a resource and what belongs to it.

        Raises:
            NotFound: there is none.
            InvalidResource: a rule forbids it, such as a Mesh that still has Dataplanes.
        """
        async with self._turn(key):
            for attempt in range(_ATTEMPTS):
                try:
                    deletion = await self._delete(key, allow_weakening)
                except (Conflict, AlreadyExists):
                    await _pause(attempt)
                    continue
                self._log(key, deletion.warnings)
                return deletion
        raise Conflict(f"{key} is being changed by others all the time; try again")

    async def _delete(self, key: Key, allow_weakening: bool) -> Deletion:
        old = await self.store.get(key)
        rules = self._rules.get(key.kind)
        decision = await rules.on_delete(old, self.store) if rules else Decision()
        weakens = _weakening(decision, allow_weakening)
        looked_at = (Expect(key, old.version),) if rules else ()  # what goes is what was judged
        keeps = kinds.DATAPLANE.name if key.kind == MESH.name else ""
        try:
            await self.store.transact([*decision.operations, *looked_at, Delete(key, unless_owns=keeps)])
        except StillOwns:
            raise _still_attached() from None
        return Deletion((*weakens, *decision.warnings), weakens)

    def _turn(self, key: Key) -> asyncio.Lock:
        return self._turns.setdefault(_of_whole(key), asyncio.Lock())

    def _log(self, key: Key, warnings: Iterable[str]) -> None:
        for warning in warnings if self._tells else ():
            log.warning("taken with a warning", kind=key.kind, mesh=key.mesh, name=key.name, warning=warning)


def _of_whole(key: Key) -> Key:
    """Returns what a change is judged with: permissions, with all others of their mesh."""
    return kinds.MESH.key(key.mesh) if key.kind in JUDGED_TOGETHER else key


JUDGED_TOGETHER = frozenset((kinds.TRAFFIC_PERMISSION.name, kinds.MESH_TRAFFIC_PERMISSION.name))


def _declared(resource: AnyResource, stored: AnyResource | None) -> AnyResource:
    """As somebody declares it, who is not its proxy: what came with a proxy elsewhere has not come with one here."""
    if REGISTERED not in resource.labels or (stored is not None and REGISTERED in stored.labels):
        return resource
    return replace(resource, labels={name: value for name, value in resource.labels.items() if name != REGISTERED})


def _still_attached() -> InvalidResource:
    return InvalidResource.of("mesh", "unable to delete mesh, there are still some dataplanes attached")


def _weakening(decision: Decision, allowed: bool) -> tuple[str, ...]:
    """Describes what a change weakens.

    Raises:
        WeakeningRefused: the mesh is guarded, and nobody has asked for it.
    """
    if decision.weakens and decision.guarded and not allowed:
        raise WeakeningRefused(Violation(v.field, f"{v.reason}. {_GUARDED}") for v in decision.weakens)
    return tuple(f"this weakens the mesh: {violation}" for violation in decision.weakens)


_GUARDED = (
    "The mesh refuses what weakens it unless that is asked for: --allow-weakening of kumactl, ?allowWeakening=true "
    "of the API"
)


async def _pause(attempt: int) -> None:
    """Wait for a random while, longer from attempt to attempt, so that not all writers meet again."""
    longest = min(_LONGEST_PAUSE, 0.002 * 2.0**attempt)
    await asyncio.sleep(random.uniform(0, longest))  # noqa: S311 - spreads attempts


def missing_mesh(name: str) -> InvalidResource:
    """The complaint about a resource in a mesh that is not there."""
    return InvalidResource.of("mesh", f"mesh of name {name} is not found")
