"""Decides about calls by one view of a mesh, as it is once everything has followed that view. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from kuma.policy import decision
from kuma.policy.authorization import Admission
from kuma.policy.decision import ALLOWED, REFUSED, Shown, Verdict
from kuma.policy.permissions import Permissions
from kuma.resources.models import target_ref
from kuma.resources.models.dataplane import DataplaneSpec, Inbound
from kuma.resources.models.mesh_transition import Level
from kuma.resources.resource import Resource
from kuma.resources.view import MeshView

Dataplane = Resource[DataplaneSpec]


@dataclass(frozen=True)
class Judge:
    """Judges callers by what a view declares."""

    view: MeshView

    @cached_property
    def permissions(self) -> Permissions:
        """The permissions of the mesh, found by what they select."""
        return Permissions().following(self.view.permissions, self.view.mesh_permissions)

    @cached_property
    def level(self) -> Level:
        """The level that is declared."""
        backend = self.view.enabled_backend
        if backend is None:
            return Level.PLAIN
        return Level.STRICT if backend.mode == "STRICT" else Level.ENCRYPTING

    @cached_property
    def all_shown(self) -> frozenset[Shown]:
        """Returns what the certificates of all Dataplanes show."""
        return frozenset(self.shown_by(dataplane) for dataplane in self.view.dataplanes.values())

    @property
    def unverified(self) -> Verdict:
        """Returns what becomes of callers in plaintext, and with a TLS of their own."""
        return REFUSED if self.level is Level.STRICT else ALLOWED

    def shown_by(self, dataplane: Dataplane) -> Shown:
        """Returns what the certificate of a Dataplane shows."""
        return decision.carried(dataplane.spec.tag_values, self.permissions.source_tags)

    def of_mesh(self, caller: Shown, dataplane: Dataplane, inbound: Inbound) -> Verdict:
        """Returns what becomes of a proxy of the mesh that calls an inbound and shows these tags."""
        if self.level is Level.PLAIN:
            return ALLOWED
        return decision.verdict(self.admission(dataplane, inbound), caller)

    def admission(self, dataplane: Dataplane, inbound: Inbound) -> Admission:
        """Returns whom an inbound admits."""
        return self.permissions.admission(target_ref.facets(dataplane, inbound, self.permissions.facets))

    def inbound(self, dataplane: str, port: int) -> tuple[Dataplane, Inbound] | None:
        """Returns the inbound of a Dataplane at a port."""
        found = self.view.dataplanes.get(dataplane)
        inbounds = found.spec.net.inbound if found else ()
        return next(((found, one) for one in inbounds if found is not None and one.port == port), None)

    @cached_property
    def by_services(self) -> Mapping[frozenset[str], tuple[Dataplane, ...]]:
        """The Dataplanes by their services."""
        found: dict[frozenset[str], list[Dataplane]] = {}
        for dataplane in self.view.dataplanes.values():
            found.setdefault(frozenset(dataplane.spec.services), []).append(dataplane)
        return {services: tuple(dataplanes) for services, dataplanes in found.items()}
