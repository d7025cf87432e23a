"""Decides which Dataplanes may be members of a mesh, as its `constraints.dataplaneProxy` says."""

from __future__ import annotations

from collections.abc import Mapping

from kuma.policy.matching import match
from kuma.resources.models.blocks.mesh_blocks import Membership
from kuma.resources.models.dataplane import DataplaneSpec


def exclusion(mesh: str, membership: Membership, dataplane: DataplaneSpec) -> str:
    """Returns why a Dataplane may not be a member; empty if it may.

    Every inbound, and a gateway, has to fulfil one of the requirements, if there are any, and no restriction.
    """
    for tags in dataplane.net.tag_sets:
        said = f'dataplane cannot be a member of mesh "{mesh}" because its tags "{_written(tags)}"'
        if membership.requirements and not any(match(one.tags, tags) is not None for one in membership.requirements):
            return f"{said} does not fulfill any requirements defined on the Mesh"
        if any(match(one.tags, tags) is not None for one in membership.restrictions):
            return f"{said} matches restricted tags defined on the Mesh"
    return ""


def _written(tags: Mapping[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in sorted(tags.items()))
