"""Blocks of the original's Mesh that are not about mutual TLS: taken, and given back as they were written.

What of them asks for something that is not done here is told by name, or refused where to pass it over would be unsafe.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import StrictBool

from kuma.base.errors import Violation
from kuma.resources import tags as tag_rules
from kuma.resources.models import access_logs
from kuma.resources.models.access_logs import Logging
from kuma.resources.models.blocks import metrics
from kuma.resources.models.blocks.metrics import MeshMetrics
from kuma.resources.resource import Model


class OutboundTraffic(Model):
    """`passthrough`: whether workloads may call what is outside the mesh; it holds with transparent proxying."""

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
    """Tracing: where traces would go."""

    enabled_backend: str = ""
    default_backend: str = ""
    backends: tuple[Any, ...] = ()


class Selection(Model):
    """Tags that an inbound has, with `*` for any value."""

    tags: dict[str, str] = {}


class Membership(Model):
    """Membership rules: every inbound has to fulfil one of the requirements, and none of the restrictions."""

    requirements: tuple[Selection, ...] = ()
    restrictions: tuple[Selection, ...] = ()


class Constraints(Model):
    """Constraints on Dataplanes."""

    dataplane_proxy: Membership | None = None


class MeshServices(Model):
    """Services as resources of their own."""

    mode: str = "Disabled"


class Blocks(Model):
    """The blocks, as part of a Mesh. `skipCreatingInitialPolicies` holds whatever it says: none are ever created."""

    networking: MeshNetworking | None = None
    routing: Routing | None = None
    metrics: MeshMetrics | None = None
    logging: Logging | None = None
    tracing: Backends | None = None
    constraints: Constraints | None = None
    mesh_services: MeshServices | None = None
    skip_creating_initial_policies: tuple[str, ...] = ()

    @property
    def passes_through(self) -> bool:
        """Tells whether workloads may call what is outside the mesh."""
        outbound = self.networking.outbound if self.networking else None
        return outbound is None or outbound.passthrough is not False

    @property
    def membership(self) -> Membership:
        """The rules of who may be a member; empty ones admit everybody."""
        return (self.constraints and self.constraints.dataplane_proxy) or Membership()


def validate(spec: Blocks) -> Iterator[Violation]:
    """Refuses what it would be unsafe to pass over."""
    yield from metrics.validate(spec.metrics)
    yield from access_logs.validate_mesh(spec.logging)
    for name in ("requirements", "restrictions"):
        for index, selection in enumerate(getattr(spec.membership, name)):
            path = f"constraints.dataplaneProxy.{name}[{index}].tags"
            yield from tag_rules.validate(path, selection.tags, selector=True)


def not_done(spec: Blocks) -> Iterator[Violation]:
    """Says what of these blocks has no effect here, and what that means."""
    for name, meaning in _MEANINGS.items():
        block = getattr(spec, name)
        path = type(spec).model_fields[name].alias or name
        for field in block.to_wire() if block else ():
            yield Violation(f"{path}.{field}", f"is stored and given back, and has no effect here: {meaning}")
    for index, backend in enumerate(spec.metrics.backends if spec.metrics else ()):
        yield from metrics.not_done(f"metrics.backends[{index}].conf", backend.conf)
    yield from access_logs.not_done_in_mesh(spec.logging)


def warnings(spec: Blocks) -> Iterator[str]:
    """Returns warnings about what is done and should be known."""
    if not spec.passes_through:
        yield (
            "networking.outbound.passthrough: false holds for proxies with networking.transparentProxying only; "
            "nothing keeps the other workloads from what is outside the mesh"
        )
    for index, backend in enumerate(spec.metrics.backends if spec.metrics else ()):
        yield from metrics.warnings(f"metrics.backends[{index}].conf", backend.conf)


_MEANINGS = {
    "routing": "there is one zone; requests go to all endpoints of a service alike",
    "tracing": "proxies send no traces",
    "mesh_services": "services are what the tags of inbounds say",
}
