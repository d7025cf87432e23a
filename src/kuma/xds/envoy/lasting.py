"""What a proxy runs whoever is admitted: made once for its Dataplane, and good as long as what it was made of.

After a changed permission nothing but listeners and routes of inbounds has to be made, of frames that are at hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, TypeAlias

from kuma.policy.access_logs import AccessLogs
from kuma.resources.models.dataplane import DataplaneSpec
from kuma.resources.models.mesh_transition import Level
from kuma.resources.resource import Resource
from kuma.xds.envoy.listeners.connection_limits import Limits
from kuma.xds.envoy.listeners.inbound import Frame
from kuma.xds.envoy.mesh_wide.inbound_admissions import KnownBy
from kuma.xds.envoy.node.capabilities import Capabilities
from kuma.xds.envoy.resource import Entry, TypeUrl
from kuma.xds.envoy.services.service_entries import Made, ServiceEntries
from kuma.xds.envoy.services.service_members import Withheld


class Basis(NamedTuple):
    """What of a mesh it depends on, besides the services that are called."""

    level: Level
    limits: Limits
    logs: AccessLogs
    facets: frozenset[str]
    """What inbounds are known by besides their tags."""


class Proxied(NamedTuple):
    """What of a proxy it depends on."""

    resource: Resource[DataplaneSpec]
    withheld: Withheld
    admin_port: int
    envoy: Capabilities


@dataclass(frozen=True, eq=False, slots=True)
class Served:
    """An inbound at one address: who is admitted there is to be said of its frame."""

    framed: Frame
    known_by: KnownBy
    service: str


class Run(NamedTuple):
    """Entries in a row, with their types: so they take a tenth of what a pair for each would."""

    types: tuple[TypeUrl, ...]
    entries: tuple[Entry, ...]

    @classmethod
    def of(cls, pairs: Sequence[tuple[TypeUrl, Entry]]) -> Run:
        """Returns them; the types of proxies that are alike are one object."""
        return cls(_shared(tuple(kind for kind, _ in pairs)), tuple(entry for _, entry in pairs))


@lru_cache(maxsize=1000)
def _shared(types: tuple[TypeUrl, ...]) -> tuple[TypeUrl, ...]:
    return types


Step: TypeAlias = Run | Served


@dataclass(frozen=True, eq=False, slots=True)
class Lasting:
    """All of it in the order in which it is sent, with the places of what is made anew."""

    basis: Basis
    of: Proxied
    called: tuple[Made, ...]
    steps: tuple[Step, ...]

    def holds(self, basis: Basis, of: Proxied, services: ServiceEntries) -> bool:
        """Tells whether it would be made just so again."""
        return (
            self.basis is basis
            and self.of.resource is of.resource
            and self.of[1:] == of[1:]
            and all(map(services.holds, self.called))
        )
