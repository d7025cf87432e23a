"""Bounds what the permissions of a mesh ask of its proxies together, whoever has written how many of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from kuma.base.errors import Violation
from kuma.policy.permissions import Permissions, Place, names_service
from kuma.resources import limits


def violations(before: Permissions, after: Permissions) -> Iterator[Violation]:
    """Finds what a change makes too large; what was too large before may become smaller step by step."""
    old, new = _crowds(before.callers), _crowds(after.callers)
    for service, count in new.items():
        most = limits.OF_ONE_SERVICE if service else limits.BROAD
        if count > max(most, old.get(service, 0)):
            whose = f'for the service "{service}"' if service else "that select their target by no service"
            yield Violation(
                "spec",
                f"makes {count:,} callers in all MeshTrafficPermissions {whose}; {most:,} are the most in one mesh. "
                "Let callers have a tag in common and select by that",
            )
    if after.broad > max(limits.PERMISSION_SELECTORS, before.broad):
        yield Violation(
            "destinations",
            f"makes {after.broad:,} destinations without the name of a service in all TrafficPermissions of the mesh; "
            f"{limits.PERMISSION_SELECTORS:,} are the most. Name the service, or let services have a tag in common",
        )


def _crowds(callers: Mapping[Place, int]) -> Mapping[str, int]:
    """Counts callers by the service that they may call; those of no service in particular under ""."""
    found = {where[1]: count for where, count in callers.items() if names_service(where)}
    return {**found, "": sum(count for where, count in callers.items() if not names_service(where))}
