"""Decides which callers an inbound admits. Without a permission that selects it, an inbound admits nobody.

All permissions of a mesh are found by what they select: what a change or a question costs is what it concerns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, TypeVar

from kuma.policy import authorization
from kuma.policy.authorization import NOBODY, Admission, MeshPermission, Permission, principals, selected_source_tags
from kuma.policy.matching import match
from kuma.resources import tags as tag_rules
from kuma.resources.models import target_ref

Tags = tuple[tuple[str, str], ...]
Place = tuple[str, str]
"""A tag and its value, or `*` for any: where a selector is looked for. Each has one."""
_TOGETHER, _UNITED = "", " "
"""No permission is called so."""
EVERYWHERE: Place = ("", "")
"""Where the selector without tags is."""

T = TypeVar("T")


def place(selector: Mapping[str, str]) -> Place:
    """Returns the place of a selector: the service that it names, else an exact value, else a tag."""
    service = selector.get(tag_rules.SERVICE, tag_rules.ANY)
    if service != tag_rules.ANY:
        return tag_rules.SERVICE, service
    pairs = sorted(selector.items())
    return next((pair for pair in pairs if pair[1] != tag_rules.ANY), pairs[0] if pairs else EVERYWHERE)


def names_service(where: Place) -> bool:
    """Tells whether what is found there is of one service."""
    return where[0] == tag_rules.SERVICE and where[1] != tag_rules.ANY


def _places(tags: Mapping[str, str]) -> Iterator[Place]:
    yield EVERYWHERE
    for name, value in tags.items():
        yield name, value
        yield name, tag_rules.ANY


@dataclass(frozen=True, slots=True)
class _Destination:
    """One of the destinations of a TrafficPermission."""

    selector: Mapping[str, str]
    permission: Permission


@dataclass(frozen=True, slots=True, eq=False)
class Permissions:
    """Immutable, and equal to itself only: a change makes another one, which shares with it what has not changed."""

    legacy: Mapping[str, Permission] = field(default_factory=dict)
    mesh: Mapping[str, MeshPermission] = field(default_factory=dict)
    callers: Mapping[Place, int] = field(default_factory=dict)
    """How many callers the MeshTrafficPermissions name that are found there."""
    broad: int = 0
    """How many destinations of TrafficPermissions name no service."""
    _destinations: Mapping[Place, tuple[_Destination, ...]] = field(default_factory=dict, repr=False)
    _targets: Mapping[Place, tuple[MeshPermission, ...]] = field(default_factory=dict, repr=False)
    _looked_at: Mapping[str, int] = field(default_factory=dict, repr=False)
    """The tags that callers are selected by, with the number of permissions that do."""
    _facets: Mapping[str, int] = field(default_factory=dict, repr=False)
    """What targets are selected by besides tags, with the number of permissions that do."""
    _known: dict[Tags, Admission] = field(default_factory=dict, repr=False)
    _said: dict[tuple[str, ...], Admission] = field(default_factory=dict, repr=False)
    """What permissions say, by their names: one TrafficPermission, or all MeshTrafficPermissions of an inbound."""

    @classmethod
    def of(cls, legacy: Iterable[Permission], mesh: Iterable[MeshPermission]) -> Permissions:
        """Returns these permissions, and none before them."""
        return cls().following({one.name: one for one in legacy}, {one.name: one for one in mesh})

    def following(self, legacy: Mapping[str, Permission], mesh: Mapping[str, MeshPermission]) -> Permissions:
        """Returns the permissions after these: the very same object if nothing has changed."""
        if legacy is self.legacy and mesh is self.mesh:
            return self
        left, come = _changes(self.legacy, legacy)
        targets_left, targets_come = _changes(self.mesh, mesh)
        targets_left, targets_come = _effective(targets_left), _effective(targets_come)
        looked_at, callers, facets = Counter(self._looked_at), Counter(self.callers), Counter(self._facets)
        for sign, some, others in ((-1, left, targets_left), (1, come, targets_come)):
            for permission in some:
                looked_at.update(dict.fromkeys(selected_source_tags([permission], []), sign))
            for target in others:
                looked_at.update(dict.fromkeys(selected_source_tags([], [target]), sign))
                callers[place(target.spec.selected)] += sign * target.spec.size
                facets.update({name: sign for name in target.spec.selected if not target_ref.is_tag(name)})
        return Permissions(
            legacy,
            mesh,
            +callers,
            self.broad + sum(map(_broad, come)) - sum(map(_broad, left)),
            _replaced(
                self._destinations,
                [(place(d.match), _Destination(d.match, p)) for p in left for d in p.spec.destinations],
                [(place(d.match), _Destination(d.match, p)) for p in come for d in p.spec.destinations],
            ),
            _replaced(
                self._targets,
                [(place(p.spec.selected), p) for p in targets_left],
                [(place(p.spec.selected), p) for p in targets_come],
            ),
            +looked_at,
            +facets,
            _said=self._unchanged({p.name for p in (*left, *come)}, {p.name for p in (*targets_left, *targets_come)}),
        )

    def _unchanged(self, legacy: Set[str], mesh: Set[str]) -> dict[tuple[str, ...], Admission]:
        """Returns the others, unchanged."""
        return {
            names: said
            for names, said in self._said.items()
            if names[0] != _UNITED and (mesh.isdisjoint(names) if names[0] == _TOGETHER else legacy.isdisjoint(names))
        }

    @property
    def source_tags(self) -> frozenset[str]:
        """The tags, other than the service, that callers are selected by: leaves have to carry these."""
        return frozenset(self._looked_at)

    @property
    def facets(self) -> frozenset[str]:
        """Facets that inbounds are selected by, besides their tags: each is part of what is asked for."""
        return frozenset(self._facets)

    def remember(self, inbounds: int) -> None:
        """Keeps what was asked for of that many inbounds at most: of others, there are none any more."""
        if len(self._known) > inbounds:
            self._known.clear()

    def admission(self, inbound: Mapping[str, str]) -> Admission:
        """Returns who may call an inbound with these facets: MeshTrafficPermissions decide if there are any for it.

        At a place of several inbounds everybody is admitted who may call one of them, and nobody who is denied by one.
        """
        key = tuple(sorted(inbound.items()))
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._admission(inbound)
        return found

    def _admission(self, known_by: Mapping[str, str]) -> Admission:
        parts = [self._admission_alone(own) for own in target_ref.apart(known_by)]
        return parts[0] if len(parts) == 1 else self._unite(parts)

    def _unite(self, parts: Sequence[Admission]) -> Admission:
        """Combines those of inbounds at one place, once for all places where the same ones meet."""
        key = (_UNITED, *(str(id(part)) for part in parts))  # which are kept as long as this is
        found = self._said.get(key)
        if found is None:
            found = self._said[key] = authorization.united(parts)
        return found

    def _admission_alone(self, tags: Mapping[str, str]) -> Admission:
        matching = [
            target
            for where in _places(tags)
            for target in self._targets.get(where, ())
            if match(target.spec.selected, tags) is not None
        ]
        return self._merge(matching) if matching else self._winner(tags)

    def _merge(self, matching: Iterable[MeshPermission]) -> Admission:
        """Combines several of them, once for all inbounds that the same ones are for."""
        key = (_TOGETHER, *sorted(permission.name for permission in matching))
        found = self._said.get(key)
        if found is None:
            found = self._said[key] = authorization.merged(matching)
        return found

    def _winner(self, tags: Mapping[str, str]) -> Admission:
        """Applies the one TrafficPermission that wins.

        Exactly one decides: the one whose destination is the most specific, then the one created last, then the first
        by name. Its sources do not take part in the choice, and permissions are not merged.
        """
        best: tuple[Any, Permission] | None = None
        for where in _places(tags):
            for destination in self._destinations.get(where, ()):
                rank = match(destination.selector, tags)
                if rank is None:
                    continue
                permission = destination.permission
                order = (rank, permission.creation_time)
                if best is None or order > best[0] or (order == best[0] and permission.name < best[1].name):
                    best = order, permission
        return NOBODY if best is None else self._alone(best[1])

    def _alone(self, winner: Permission) -> Admission:
        key = (winner.name,)
        found = self._said.get(key)
        if found is None:
            found = self._said[key] = Admission(winner.name, principals(winner))
        return found


def _changes(before: Mapping[str, T], after: Mapping[str, T]) -> tuple[list[T], list[T]]:
    """Returns those that have left, and those that have come; what has changed is among both."""
    if before is after:
        return [], []
    left = [found for name, found in before.items() if after.get(name) is not found]
    return left, [found for name, found in after.items() if before.get(name) is not found]


def _effective(targets: Iterable[MeshPermission]) -> list[MeshPermission]:
    return list(authorization.effective(targets))


def _broad(permission: Permission) -> int:
    return sum(not names_service(place(destination.match)) for destination in permission.spec.destinations)


def _replaced(
    before: Mapping[Place, tuple[T, ...]], left: Iterable[tuple[Place, T]], come: Iterable[tuple[Place, T]]
) -> Mapping[Place, tuple[T, ...]]:
    """Returns an index without what has left and with what has come: other places keep what they have."""
    gone, new = _by_place(left), _by_place(come)
    after = dict(before)
    for where in gone.keys() | new.keys():
        away = {id(_owner(item)) for item in gone.get(where, ())}
        found = (*(i for i in before.get(where, ()) if id(_owner(i)) not in away), *new.get(where, ()))
        if found:
            after[where] = found
        else:
            after.pop(where, None)
    return after


def _by_place(items: Iterable[tuple[Place, T]]) -> dict[Place, list[T]]:
    found: dict[Place, list[T]] = {}
    for where, item in items:
        found.setdefault(where, []).append(item)
    return found


def _owner(item: Any) -> object:
    """Returns the permission that something in an index is of."""
    return item.permission if isinstance(item, _Destination) else item
