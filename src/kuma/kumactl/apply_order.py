"""The order in which resources that are applied together are sent, such that no instant is less than what is asked for.

Secrets come before the Meshes that are made of them, and permissions before the mutual TLS that needs them. A mesh that
does not exist has to come first, because everything else belongs to it: it is created as it is meant, but waits
(`AWAITED`) for its Secrets and permissions, and is sent again when they are there.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

from kuma.resources import kinds
from kuma.resources.models.mesh import AUTHORITY_LABEL, AWAITED
from kuma.resources.resource import Key, Resource

_SIGNING_KEYS = "user-token-signing-key"
_SECRETS = (kinds.SECRET.name, kinds.GLOBAL_SECRET.name)
_LAST = 4
"""Turn of what may end the token that the rest is applied with."""
PERMISSIONS = (kinds.TRAFFIC_PERMISSION.name, kinds.MESH_TRAFFIC_PERMISSION.name)


@dataclass(frozen=True, slots=True)
class Sending:
    """A resource to be sent. `again`: it is sent once more later, and what is said of it then is what holds."""

    resource: Resource[Any]
    again: bool = False


def rounds(resources: Iterable[Resource[Any]], meshes: Set[str]) -> Sequence[Sequence[Sending]]:
    """Yields what is sent round after round; `meshes` exist already.

    Signing keys of user tokens come last: they may end the token that the rest is applied with. What is said of
    permissions may be about Dataplanes that come after them.
    """
    whole = list(resources)
    peopled = {resource.mesh for resource in whole if resource.key.kind == kinds.DATAPLANE.name}
    begun = [_begun(mesh, whole) for mesh in whole if _is_mesh(mesh) and mesh.name not in meshes]
    finished = {sending.resource.name for sending in begun if not sending.again}
    rest = [resource for resource in whole if not (_is_mesh(resource) and resource.name in finished)]
    turns = [list(resources) for _, resources in itertools.groupby(sorted(rest, key=turn), turn)]
    again = {one.key for one in rest if one.key.kind in PERMISSIONS and one.mesh in peopled}
    looked_at_again = [Sending(resource) for resource in rest if resource.key in again]
    earlier, last = ([t for t in turns if (turn(t[0]) == _LAST) is is_last] for is_last in (False, True))
    first = itertools.chain.from_iterable(_settled(resources, again) for resources in earlier)
    found = [begun, *first, looked_at_again, *itertools.chain.from_iterable(_settled(keys, again) for keys in last)]
    return [one for one in found if one]


def _settled(resources: Sequence[Resource[Any]], again: Set[Key]) -> Sequence[Sequence[Sending]]:
    """Returns the rounds of one turn; those in `again` are looked at once more when all the others are there.

    A Secret may be half of a pair: it is looked at again with all of its mesh.
    """
    last = {resource.mesh: resource for resource in resources if resource.key.kind == kinds.SECRET.name}
    early = [resource for resource in resources if last.get(resource.mesh, resource) is not resource]
    sent = [Sending(resource, again=resource in early or resource.key in again) for resource in resources]
    return [sent, [Sending(resource) for resource in early]]


def turn(resource: Resource[Any]) -> int:
    """Returns the turn of a resource, in a control plane that has its mesh."""
    if resource.name.startswith(_SIGNING_KEYS) and resource.key.kind in _SECRETS:
        return _LAST
    if resource.key.kind in _SECRETS:
        return 0
    if resource.key.kind in PERMISSIONS:
        return 1
    return 2 if _is_mesh(resource) else 3


def _begun(mesh: Resource[Any], whole: Iterable[Resource[Any]]) -> Sending:
    """Returns the resource that creates a mesh, before anything that belongs to it is sent."""
    belonging = {resource.key.kind for resource in whole if resource.mesh == mesh.name}
    if not mesh.spec.backends or belonging.isdisjoint((kinds.SECRET.name, *PERMISSIONS)):
        return Sending(mesh)
    return Sending(replace(mesh, labels={**mesh.labels, AUTHORITY_LABEL: AWAITED}), again=True)


def _is_mesh(resource: Resource[Any]) -> bool:
    return resource.key.kind == kinds.MESH.name
