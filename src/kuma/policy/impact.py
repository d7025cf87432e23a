"""Finds what a changed permission takes away from callers, to warn those who did not mean it to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from kuma.policy.authorization import Admission, Principal
from kuma.policy.permissions import Permissions
from kuma.resources import tags as tag_rules

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

    def on(self, inbound_tags: Mapping[str, str]) -> Displacement | None:
        """Returns what happens to an inbound with these tags; None if its callers lose nothing."""
        old, new = self.before.admission(inbound_tags), self.after.admission(inbound_tags)
        if old.permission in ("", new.permission):
            return None
        both = id(old), id(new)
        if both not in self._lost:
            self._lost[both] = _lost(old, new)
        lost = self._lost[both]
        return (inbound_tags.get(tag_rules.SERVICE, ""), old.permission, lost) if lost else None


def _lost(old: Admission, new: Admission) -> tuple[Principal, ...]:
    """The callers of `old` that `new` does not name: each is compared with those only that share a tag with it."""
    if Principal() in new.principals:
        return ()
    rarity = Counter(pair for principal in new.principals for pair in principal.tags)
    by_rarest: dict[tuple[str, str], list[frozenset[tuple[str, str]]]] = {}
    for principal in new.principals:
        rarest = min(principal.tags, key=lambda pair: rarity[pair])
        by_rarest.setdefault(rarest, []).append(frozenset(principal.tags))
    return tuple(principal for principal in old.principals if not _admits(by_rarest, principal))


def _admits(by_rarest: Mapping[tuple[str, str], Iterable[frozenset[tuple[str, str]]]], caller: Principal) -> bool:
    carried = frozenset(caller.tags)
    return any(wanted <= carried for pair in caller.tags for wanted in by_rarest.get(pair, ()))
