"""Finds what a changed permission takes away from callers, to warn those who did not mean it to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from kuma.policy.authorization import Admission, Principal
from kuma.policy.permissions import Permissions
from kuma.resources import tags as tag_rules

_EFFORT = 20_000
"""Looks at callers, and groups of them, for one change: some ten milliseconds."""
_Tag = tuple[str, str]
Displacement = tuple[str, str, tuple[Principal, ...]]
"""A service where another permission decides now, the one that did, and the callers that only that one admits."""


@dataclass(slots=True)
class Impact:
    """Compares the permissions of a mesh before and after a change, inbound by inbound.

    Permissions do not add up: a more specific TrafficPermission, or the first MeshTrafficPermission of an inbound,
    takes the place of those before it. Where the same permission still decides, what it says is what was meant.
    """

    before: Permissions
    after: Permissions
    _lost: dict[tuple[int, int], tuple[Principal, ...]] = field(default_factory=dict)
    """By the identity of two admissions, which the permissions keep."""
    _same: dict[tuple[Principal, ...], tuple[Principal, ...]] = field(default_factory=dict)
    """Equal callers are one object, which can be told by its identity: there may be a thousand of them."""

    @property
    def facets(self) -> frozenset[str]:
        """Facets that inbounds are looked at by, besides their tags."""
        return self.before.facets | self.after.facets

    def on(self, inbound: Mapping[str, str]) -> Displacement | None:
        """Returns what happens to an inbound with these facets; None if its callers lose nothing."""
        old, new = self.before.admission(inbound), self.after.admission(inbound)
        if old.permission in ("", new.permission):
            return None
        both = id(old), id(new)
        if both not in self._lost:
            lost = _lost(old, new)
            self._lost[both] = self._same.setdefault(lost, lost)
        lost = self._lost[both]
        return (inbound.get(tag_rules.SERVICE, ""), old.permission, lost) if lost else None


def _lost(old: Admission, new: Admission) -> tuple[Principal, ...]:
    """Returns the callers of `old` that `new` does not name, and those that it denies.

    Of callers that are denied in part, that part is named: once for each denial.
    """
    allowed, denied, denied_before = _Callers(new.principals), _Callers(new.denied), _Callers(old.denied)
    admitted = [caller for caller in old.principals if not denied_before.include(caller)]
    refused = [caller for caller in admitted if denied.include(caller) or not allowed.include(caller)]
    left = _ByNames(set(admitted) - set(refused))
    parts = [part for denial in new.denied if (part := left.overlap(denial)) is not None]
    return tuple(dict.fromkeys((*refused, *(part for part in parts if not denied_before.include(part)))))


class _Callers:
    """Principals by the rarest of their tags: a caller is compared only with those that share one with it."""

    def __init__(self, principals: Iterable[Principal]) -> None:
        known = tuple(principals)
        self._everybody = Principal() in known
        self._by_rarest: dict[_Tag, list[frozenset[_Tag]]] = {}
        rarity = Counter(tag for principal in known for tag in principal.tags)
        for principal in known:
            if principal.tags:
                rarest = min(principal.tags, key=lambda tag: rarity[tag])
                self._by_rarest.setdefault(rarest, []).append(frozenset(principal.tags))

    def include(self, caller: Principal) -> bool:
        """Tells whether one of the principals is every such caller."""
        carried = frozenset(caller.tags)
        return self._everybody or any(
            wanted <= carried for tag in caller.tags for wanted in self._by_rarest.get(tag, ())
        )


class _ByNames:
    """Principals by the names of their tags, to find one that overlaps with another without looking at all of them.

    The effort is bounded, because hundreds of combinations of names could be compared with hundreds of others for
    seconds: what is beyond it is not warned of. Callers that share the same names of tags never come near it.
    """

    def __init__(self, principals: Iterable[Principal]) -> None:
        self._effort = _EFFORT
        self._groups: dict[frozenset[str], list[Principal]] = {}
        self._projected: dict[tuple[frozenset[str], frozenset[str]], dict[frozenset[_Tag], Principal]] = {}
        for principal in sorted(principals):
            self._groups.setdefault(frozenset(name for name, _ in principal.tags), []).append(principal)

    def overlap(self, denial: Principal) -> Principal | None:
        """Returns callers that are of one of the principals and of `denial`: they carry the tags of both.

        Different values of one tag are taken to exclude each other, though a proxy with several inbounds has both.
        """
        names = frozenset(name for name, _ in denial.tags)
        for group, members in self._groups.items():
            shared = group & names
            by_values = self._projected.get((group, shared))
            self._effort -= 1 if by_values is not None else len(members)
            if self._effort < 0:
                return None
            if by_values is None:
                by_values = {_values(member, shared): member for member in reversed(members)}
                self._projected[group, shared] = by_values
            found = by_values.get(_values(denial, shared))
            if found is not None:
                return Principal(tuple(sorted({*found.tags, *denial.tags})))
        return None


def _values(principal: Principal, names: frozenset[str]) -> frozenset[_Tag]:
    return frozenset(tag for tag in principal.tags if tag[0] in names)
