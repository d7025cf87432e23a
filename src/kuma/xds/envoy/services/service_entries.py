"""The clusters and endpoints of services, as their callers get them: made and serialised once for all of these."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from kuma.resources import tags as tag_rules
from kuma.xds.envoy.generated import Generated
from kuma.xds.envoy.resource import Entry
from kuma.xds.envoy.services import clusters
from kuma.xds.envoy.services.service_members import ServiceMembers, Tags


class Made(NamedTuple):
    """Cluster and endpoints that an outbound leads to, and the protocol that is spoken there."""

    service: str
    tags: Tags
    """What the outbound asks for."""
    cluster: Entry
    endpoints: Entry
    protocol: str


class ServiceEntries:
    """Those of one mesh, by service and by the tags that outbounds ask for. Whose members are the same are kept."""

    def __init__(
        self, mesh: str, members: ServiceMembers, generated: Generated, *, mtls: bool, previous: ServiceEntries | None
    ) -> None:
        """Takes over from `previous` what is the same."""
        self._mesh = mesh
        self._members = members
        self._generated = generated
        self._mtls = mtls
        self.changed: frozenset[str] = frozenset(members.callers) | (
            frozenset(members.services) if members.redirected else frozenset()
        )
        """The services of which callers may be led to something else than before."""
        self._made: dict[str, dict[Tags, Made]] = {}
        if previous is not None and previous._mtls == mtls:
            edited = members.edited(previous._members)
            moved = members.moved(previous._members, edited)
            self.changed = frozenset(service for service in moved if not self._only_awaits(service, edited, previous))
            self._made = {service: made for service, made in previous._made.items() if service not in self.changed}
            if len(self) > members.outbounds + (members.inbounds if members.redirected else 0):
                self._forget_unasked()

    def __len__(self) -> int:
        return sum(map(len, self._made.values()))

    def _only_awaits(self, service: str, edited: Iterable[str], previous: ServiceEntries) -> bool:
        """Tells whether nothing has happened to a service but that members have come which are not ready.

        Thousands of proxies that come one after the other are not to concern their callers before they serve.
        """
        before, now = previous._members.services.get(service, {}), self._members.services.get(service, {})
        protocols = {made.protocol for made in previous._made.get(service, {}).values()}
        return all(
            name not in before and not any(m.ready or {m.protocol} != protocols for m in now[name])
            for name in edited
            if name in before or name in now
        )

    def _forget_unasked(self) -> None:
        """Forgets what nobody calls any more."""
        outbounds = (outbound for d in self._members.dataplanes.values() for outbound in d.spec.net.outbound)
        asked = {tuple(sorted(outbound.tags.items())) for outbound in outbounds}
        self._made = {
            service: {tags: one for tags, one in made.items() if tags in asked} for service, made in self._made.items()
        }

    def of(self, tags: Tags) -> Made:
        """Returns what an outbound with these tags leads to."""
        wanted = dict(tags)
        service = wanted[tag_rules.SERVICE]
        known = self._made.setdefault(service, {})
        if tags not in known:
            members = self._members.members(service)
            selected = [m for m in members if len(wanted) == 1 or clusters.selects(wanted, dict(m.tags))]
            protocol = clusters.common_protocol(member.protocol for member in selected)
            known[tags] = Made(
                service,
                tags,
                self._generated.entry(_cluster, self._mesh, tags, protocol, self._mtls),
                clusters.endpoints(wanted, (member.endpoint for member in selected if member.ready)),
                protocol,
            )
        return known[tags]

    def holds(self, made: Made) -> bool:
        """Tells whether that is what an outbound leads to still."""
        known = self._made.get(made.service)
        return known is not None and known.get(made.tags) is made

    def callers_concerned(self) -> frozenset[str]:
        """Returns the Dataplanes with an outbound that may lead to something else than before."""
        return frozenset().union(*(self._members.callers.get(service, ()) for service in self.changed))


def _cluster(mesh: str, tags: Tags, protocol: str, mtls: bool) -> Entry:
    return clusters.service(mesh, dict(tags), protocol, mtls=mtls)
