"""Blocks of the original's Mesh that say nothing here: taken as long as they ask for nothing, and given back as meant.

A value that would ask for something is refused by name: nothing is silently ignored.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import StrictBool

from kuma.base.errors import Violation
from kuma.resources.resource import Model

_NOT_HERE = "is part of the original's Mesh but not implemented here; remove it"


class OutboundTraffic(Model):
    """`passthrough`: whether workloads may call what is outside the mesh. Nothing here keeps them from it."""

    passthrough: StrictBool | None = None


class MeshNetworking(Model):
    """Reachability of what is outside the mesh."""

    outbound: OutboundTraffic | None = None


class Routing(Model):
    """Preferences of paths between zones, of which there is one."""

    locality_aware_load_balancing: StrictBool = False
    zone_egress: StrictBool = False
    default_forbid_mesh_external_service_access: StrictBool = False


class Backends(Model):
    """Metrics, logging or tracing: where they would go."""

    enabled_backend: str = ""
    default_backend: str = ""
    backends: tuple[Any, ...] = ()


class Membership(Model):
    """Membership rules for Dataplanes."""

    requirements: tuple[Any, ...] = ()
    restrictions: tuple[Any, ...] = ()


class Constraints(Model):
    """Constraints on Dataplanes."""

    dataplane_proxy: Membership | None = None


class MeshServices(Model):
    """Services as resources of their own."""

    mode: str = "Disabled"


class Unused(Model):
    """The blocks, as part of a Mesh. `skipCreatingInitialPolicies` holds whatever it says: none are ever created."""

    networking: MeshNetworking | None = None
    routing: Routing | None = None
    metrics: Backends | None = None
    logging: Backends | None = None
    tracing: Backends | None = None
    constraints: Constraints | None = None
    mesh_services: MeshServices | None = None
    skip_creating_initial_policies: tuple[str, ...] = ()


def validate(spec: Unused) -> Iterator[Violation]:
    """Returns a violation for each of these blocks that asks for something."""
    outbound = spec.networking.outbound if spec.networking else None
    if outbound is not None and outbound.passthrough is False:
        yield Violation(
            "networking.outbound.passthrough",
            "false is not implemented here: proxies do not intercept what workloads call by themselves; remove it",
        )
    for block in ("routing", "metrics", "logging", "tracing", "mesh_services"):
        yield from _set(getattr(spec, block), type(spec).model_fields[block].alias or block)
    yield from _set(spec.constraints and spec.constraints.dataplane_proxy, "constraints.dataplaneProxy")


def _set(block: Model | None, path: str) -> Iterator[Violation]:
    for name in block.to_wire() if block else ():
        yield Violation(f"{path}.{name}", _NOT_HERE)
