"""Which callers an inbound admits. Without a permission that selects it, an inbound admits nobody."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kuma.policy.matching import Rank, match
from kuma.resources import tags as tag_rules
from kuma.resources.resource import Resource
from kuma.resources.traffic_permission import TrafficPermissionSpec

Permission = Resource[TrafficPermissionSpec]


@dataclass(frozen=True, slots=True, order=True)
class Principal:
    """A caller that carries all of these tags; without tags, every caller with an identity of the mesh."""

    tags: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Admission:
    """Who may call one inbound, and by which permission. No permission admits nobody."""

    permission: str = ""
    principals: tuple[Principal, ...] = ()


NOBODY = Admission()


def admission(permissions: Iterable[Permission], inbound_tags: Mapping[str, str]) -> Admission:
    """Who may call an inbound with these tags.

    Exactly one permission decides: the one whose destination is the most specific, then the one created last, then
    the first by name. Its sources do not take part in the choice, and permissions are not merged.
    """
    winner: tuple[Any, Permission] | None = None
    for permission in sorted(permissions, key=lambda p: p.name):
        rank = _rank(permission, inbound_tags)
        if rank is None:
            continue
        order = (rank, permission.creation_time)
        if winner is None or order > winner[0]:
            winner = (order, permission)
    return NOBODY if winner is None else Admission(winner[1].name, principals(winner[1]))


def _rank(permission: Permission, tags: Mapping[str, str]) -> Rank | None:
    ranks = (match(destination.match, tags) for destination in permission.spec.destinations)
    return max((rank for rank in ranks if rank is not None), default=None)


def principals(permission: Permission) -> tuple[Principal, ...]:
    """The callers that a permission names, each once and in one order, so that equal permissions look equal.

    The value `*` contributes nothing: it stands for any caller with an identity.
    """
    found = {
        Principal(tuple(sorted((name, value) for name, value in source.match.items() if value != tag_rules.ANY)))
        for source in permission.spec.sources
    }
    return (Principal(),) if Principal() in found else tuple(sorted(found))


def selected_source_tags(permissions: Iterable[Permission]) -> frozenset[str]:
    """The tags, other than the service, that some permission selects callers by: leaves have to carry these."""
    return frozenset(
        name
        for permission in permissions
        for principal in principals(permission)
        for name, _ in principal.tags
        if name != tag_rules.SERVICE
    )
