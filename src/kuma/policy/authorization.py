"""Says whom permissions admit and refuse, once it is known which ones an inbound is selected by; see `permissions`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

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

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        """Computed once: of a change every inbound asks for what was made of its rules, which may be thousands."""
        return hash((self.permission, self.principals, self.denied, self.shadowed))

    @cached_property
    def source_tags(self) -> frozenset[str]:
        """The tags of a caller that it looks at, besides the service."""
        known = (*self.principals, *self.denied, *self.shadowed)
        return frozenset(name for principal in known for name, _ in principal.tags) - {tag_rules.SERVICE}


NOBODY = Admission()


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


def united(parts: Iterable[Admission]) -> Admission:
    """Returns what is said together of inbounds that are at one place: whom one admits may call, unless one denies."""
    found = tuple(part for part in dict.fromkeys(parts) if part.permission)
    if len(found) <= 1:
        return found[0] if found else NOBODY
    return Admission(
        " and ".join(dict.fromkeys(part.permission for part in found)),
        tuple(sorted({principal for part in found for principal in part.principals})),
        tuple(sorted({principal for part in found for principal in part.denied})),
        tuple(sorted({principal for part in found for principal in part.shadowed})),
    )


def statements(permission: MeshPermission) -> Iterator[tuple[str, Principal]]:
    """Yields what a MeshTrafficPermission says: an action, and the callers it is for."""
    for action, caller in permission.spec.statements(permission.mesh):
        yield action, Principal(tuple(sorted(caller.items())))


def principals(permission: Permission) -> tuple[Principal, ...]:
    """Returns the callers that a permission names, each once and in one order, so that equal permissions look equal.

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
    """Returns the tags, besides the service, that some permission selects callers by: leaves have to carry these."""
    names = {name for permission in permissions for principal in principals(permission) for name, _ in principal.tags}
    said = (statement for permission in effective(mesh_permissions) for statement in statements(permission))
    names |= {name for _, principal in said for name, _ in principal.tags}
    return frozenset(names - {tag_rules.SERVICE})
