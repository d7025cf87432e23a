"""Finds what a changed permission takes away from callers, to warn those who did not mean it to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from kuma.policy.authorization import Admission, Permissions, Principal
from kuma.resources import tags as tag_rules


def displaced(
    before: Permissions, after: Permissions, inbounds: Iterable[Mapping[str, str]]
) -> Iterator[tuple[str, str, tuple[Principal, ...]]]:
    """The services where another permission decides now, the one that did, and the callers that only that one admits.

    Permissions do not add up: a more specific TrafficPermission, or the first MeshTrafficPermission of an inbound,
    takes the place of those before it. Where the same permission still decides, what it says is what was meant.
    """
    seen = set()
    for tags in inbounds:
        old, new = before.admission(tags), after.admission(tags)
        if old.permission in ("", new.permission):
            continue
        lost = tuple(principal for principal in old.principals if not _admits(new, principal))
        found = (tags.get(tag_rules.SERVICE, ""), old.permission, lost)
        if lost and found not in seen:
            seen.add(found)
            yield found


def _admits(admission: Admission, caller: Principal) -> bool:
    return any(set(principal.tags) <= set(caller.tags) for principal in admission.principals)
