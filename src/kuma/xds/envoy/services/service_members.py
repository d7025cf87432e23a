"""Members and callers of the services of a mesh. A change costs what it concerns, however large the mesh."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from kuma.policy import caller_groups
from kuma.policy.caller_groups import NOTHING_BESIDE, Companions
from kuma.resources.models import dataplane as dataplanes
from kuma.resources.models.dataplane import DataplaneSpec
from kuma.resources.resource import Resource
from kuma.resources.view import changed_names
from kuma.xds.envoy.services import clusters, serving_label

Tags = tuple[tuple[str, str], ...]
Dataplanes = Mapping[str, Resource[DataplaneSpec]]
Withheld = Mapping[int, str]
"""Inbounds of a Dataplane that are not served, by their index, each with the reason."""
NOTHING_WITHHELD: Withheld = {}
EVERYTHING = -1
"""Stands among the indexes for the whole Dataplane: its outbounds and its identity are withheld, too."""


class Member(NamedTuple):
    """One inbound of one proxy, as the callers of its service see it."""

    tags: Tags
    protocol: str
    endpoint: clusters.Endpoint
    ready: bool


Members = Mapping[str, tuple[Member, ...]]
"""The inbounds of one service, by Dataplane."""


@dataclass(frozen=True, slots=True, eq=False)
class ServiceMembers:
    """Immutable: a change makes another one, which shares with it every service that the change does not concern."""

    dataplanes: Dataplanes = field(default_factory=dict)
    withheld: Mapping[str, Withheld] = field(default_factory=dict)
    """By Dataplane."""
    services: Mapping[str, Members] = field(default_factory=dict)
    callers: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """The Dataplanes that have an outbound to a service."""
    combinations: Mapping[tuple[str, ...], int] = field(default_factory=dict)
    """The services of Dataplanes that have several, with the number of these."""
    companions: Companions = field(default_factory=lambda: NOTHING_BESIDE)
    inbounds: int = 0
    outbounds: int = 0
    redirected: frozenset[str] = frozenset()
    """The Dataplanes whose workloads call services by the addresses of proxies, too."""
    gateways: frozenset[str] = frozenset()
    """The Dataplanes that have a service without being one of its members."""

    def following(self, now: Dataplanes, withheld: Mapping[str, Withheld] | None = None) -> ServiceMembers:
        """Returns what comes after this; the very same object if nothing has changed."""
        withheld = withheld or {}
        changed = _changed(self.dataplanes, self.withheld, now, withheld)
        if now is self.dataplanes and not changed:
            return self
        services, callers = dict(self.services), dict(self.callers)
        own: dict[str, dict[str, tuple[Member, ...]]] = {}
        inbounds, outbounds = self.inbounds, self.outbounds
        for name in changed:
            old, new = self.dataplanes.get(name), now.get(name)
            before, after = _inbounds(old, self.withheld.get(name)), _inbounds(new, withheld.get(name))
            for service in before.keys() | after.keys():
                if before.get(service) != after.get(service):
                    members = own.setdefault(service, dict(services.get(service, {})))
                    members.pop(name, None)
                    if service in after:
                        members[name] = after[service]
            inbounds += (len(new.spec.net.inbound) if new else 0) - (len(old.spec.net.inbound) if old else 0)
            outbounds += (len(new.spec.net.outbound) if new else 0) - (len(old.spec.net.outbound) if old else 0)
            called, calls = _called(old), _called(new)
            for service in called - calls:
                callers[service] = callers[service] - {name}
                if not callers[service]:
                    del callers[service]
            for service in calls - called:
                callers[service] = callers.get(service, frozenset()) | {name}
        redirected = self.redirected - changed | {n for n in changed if _is_redirected(now.get(n))}
        gateways = self.gateways - changed | {n for n in changed if _is_gateway(now.get(n))}
        services.update(own)
        combinations, companions = self._combinations(changed, now)
        for service in [service for service, members in own.items() if not members]:
            del services[service]
        return ServiceMembers(
            now, withheld, services, callers, combinations, companions, inbounds, outbounds, redirected, gateways
        )

    def _combinations(
        self, changed: Iterable[str], now: Dataplanes
    ) -> tuple[Mapping[tuple[str, ...], int], Companions]:
        found = Counter(self.combinations)
        for sign, those in ((-1, self.dataplanes), (1, now)):
            several = (those[name].spec.services for name in changed if name in those)
            found.update({services: sign for services in several if len(services) > 1})
        found = +found
        same = found.keys() == self.combinations.keys()
        return found, self.companions if same else caller_groups.companions(found)

    def accompanied(self, before: ServiceMembers) -> frozenset[str]:
        """Returns the Dataplanes with a service beside which leaves may show others than `before`."""
        if self.companions is before.companions:
            return frozenset()
        old, new = before.companions, self.companions
        moved = {service for service in old.keys() | new.keys() if old.get(service) != new.get(service)}
        members = {name for service in moved for name in self.services.get(service, ())}
        others = (self.gateways | self.withheld.keys()) & self.dataplanes.keys()
        return frozenset(members | {n for n in others if not moved.isdisjoint(self.dataplanes[n].spec.services)})

    def edited(self, before: ServiceMembers) -> frozenset[str]:
        """Returns the Dataplanes that say or serve something else than `before`."""
        return _changed(before.dataplanes, before.withheld, self.dataplanes, self.withheld)

    def members(self, service: str) -> Iterable[Member]:
        """Returns the inbounds of a service."""
        return (member for members in self.services.get(service, {}).values() for member in members)

    def moved(self, before: ServiceMembers, names: Iterable[str]) -> frozenset[str]:
        """Returns the services of which Dataplanes called `names` were, or are, another part than `before`."""
        return frozenset(
            service
            for name in names
            for service in {*_services(before.dataplanes.get(name)), *_services(self.dataplanes.get(name))}
            if before.services.get(service, {}).get(name) != self.services.get(service, {}).get(name)
        )

    def called(self, before: ServiceMembers, names: Iterable[str]) -> frozenset[str]:
        """Returns the services that Dataplanes called `names` called `before`, or call now."""
        old, new = before.dataplanes, self.dataplanes
        return frozenset().union(*(_called(old.get(name)) | _called(new.get(name)) for name in names))


def _changed(
    old: Dataplanes, withheld_then: Mapping[str, Withheld], new: Dataplanes, withheld_now: Mapping[str, Withheld]
) -> frozenset[str]:
    withheld = withheld_then.keys() | withheld_now.keys()
    return changed_names(old, new) | {n for n in withheld if withheld_then.get(n) != withheld_now.get(n)}


def _services(resource: Resource[DataplaneSpec] | None) -> Iterator[str]:
    return (inbound.service for inbound in resource.spec.net.inbound) if resource else iter(())


def _is_redirected(resource: Resource[DataplaneSpec] | None) -> bool:
    return resource is not None and bool(resource.spec.net.redirected.redirect_port_outbound)


def _is_gateway(resource: Resource[DataplaneSpec] | None) -> bool:
    return resource is not None and resource.spec.net.gateway is not None


def _called(resource: Resource[DataplaneSpec] | None) -> frozenset[str]:
    return frozenset(outbound.service for outbound in resource.spec.net.calls) if resource else frozenset()


def _inbounds(resource: Resource[DataplaneSpec] | None, withheld: Withheld | None) -> Mapping[str, tuple[Member, ...]]:
    """Returns the inbounds of a Dataplane that are served, by their services."""
    found: dict[str, tuple[Member, ...]] = {}
    if resource is None:
        return found
    networking, serving = resource.spec.net, serving_label.is_serving(resource)
    for index, inbound in enumerate(networking.inbound):
        if index in (withheld or NOTHING_WITHHELD):
            continue
        address = networking.advertised_address or dataplanes.listen_address(networking, inbound)
        tags, endpoint = tuple(sorted(inbound.known_tags.items())), (address, inbound.port)
        member = Member(tags, inbound.protocol, endpoint, serving and inbound.is_ready)
        found[inbound.service] = (*found.get(inbound.service, ()), member)
    return found
