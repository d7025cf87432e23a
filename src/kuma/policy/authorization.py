"""Decides which callers an inbound admits. Without a permission that selects it, an inbound admits nobody."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from kuma.policy.matching import Rank, match
from kuma.resources import tags as tag_rules
from kuma.resources.models.mesh_traffic_permission import (
    ACTIONS,
    ALLOW,
    DENY,
    EFFECT,
    SHADOW,
    SHADOW_DENY,
    MeshTrafficPermissionSpec,
)
from kuma.resources.models.traffic_permission import TrafficPermissionSpec
from kuma.resources.resource import Resource

Permission = Resource[TrafficPermissionSpec]
MeshPermission = Resource[MeshTrafficPermissionSpec]


@dataclass(frozen=True, slots=True, order=True)
class Principal:
    """A caller that carries all of these tags; without tags, every caller with an identity of the mesh.

    With `lacks`, only if its leaf does not show each of those tags, with whatever value.
    """

    tags: tuple[tuple[str, str], ...] = ()
    lacks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Admission:
    """Callers that one inbound admits, and the permissions that say so. Without a permission it admits nobody.

    Of the `principals` those that are `denied` too are refused; those that are `shadowed` are admitted and counted as
    what a refusal would hit.
    """

    permission: str = ""
    principals: tuple[Principal, ...] = ()
    denied: tuple[Principal, ...] = ()
    shadowed: tuple[Principal, ...] = ()

    @cached_property
    def source_tags(self) -> frozenset[str]:
        """The tags of a caller that it looks at, besides the service."""
        known = (*self.principals, *self.denied, *self.shadowed)
        return frozenset(name for principal in known for name, _ in principal.tags) - {tag_rules.SERVICE}


NOBODY = Admission()


def admission(
    permissions: Iterable[Permission], mesh_permissions: Iterable[MeshPermission], inbound: Mapping[str, str]
) -> Admission:
    """Returns who may call an inbound with these facets: MeshTrafficPermissions decide if there are any for it."""
    matching = [p for p in effective(mesh_permissions) if match(p.spec.selected, inbound) is not None]
    return merged(matching) if matching else _by_permissions(permissions, inbound)


def effective(mesh_permissions: Iterable[MeshPermission]) -> Iterator[MeshPermission]:
    """Returns the permissions without those in shadow mode, which are stored to be looked at and configure nothing."""
    return (p for p in mesh_permissions if p.labels.get(EFFECT) != SHADOW)


def merged(matching: Iterable[MeshPermission]) -> Admission:
    """Returns what MeshTrafficPermissions of one inbound say together; a refusal by any of them overrides."""
    found: dict[str, set[Principal]] = {action: set() for action in ACTIONS}
    for permission in matching:
        for action, principal in statements(permission):
            found[action].add(principal)
    shadowed = found[SHADOW_DENY]
    return Admission(
        "MeshTrafficPermission",
        tuple(sorted(found[ALLOW] | shadowed)),
        tuple(sorted(found[DENY])),
        tuple(sorted(shadowed)),
    )


def statements(permission: MeshPermission) -> Iterator[tuple[str, Principal]]:
    """Yields what a MeshTrafficPermission says: an action, and the callers it is for."""
    for action, caller in permission.spec.statements(permission.mesh):
        yield action, Principal(tuple(sorted(caller.items())))


def _by_permissions(permissions: Iterable[Permission], inbound_tags: Mapping[str, str]) -> Admission:
    """Applies the one TrafficPermission that wins.

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


def selected_source_tags(
    permissions: Iterable[Permission], mesh_permissions: Iterable[MeshPermission]
) -> frozenset[str]:
    """The tags, other than the service, that some permission selects callers by: leaves have to carry these."""
    names = {name for permission in permissions for principal in principals(permission) for name, _ in principal.tags}
    said = (statement for permission in effective(mesh_permissions) for statement in statements(permission))
    names |= {name for _, principal in said for name, _ in principal.tags}
    return frozenset(names - {tag_rules.SERVICE})
