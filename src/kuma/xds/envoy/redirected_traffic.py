"""What a proxy runs for traffic that the kernel brings to it, besides its inbounds and outbounds.

Of all proxies of the mesh it knows the places, and calls each by mutual TLS when its workload does. What is meant for
no inbound passes in plaintext as long as mutual TLS is not strict; what is meant for nobody in the mesh passes if the
mesh lets workloads call what is outside.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from kuma.base.values import addresses
from kuma.resources import tags as tag_rules
from kuma.resources.models import target_ref
from kuma.resources.models.dataplane import Networking, listen_address
from kuma.transparent_proxy.redirection import SOURCES
from kuma.xds.envoy import resource_names
from kuma.xds.envoy.generated import Generated
from kuma.xds.envoy.listeners import outbound as outbound_listeners
from kuma.xds.envoy.listeners import redirected as redirected_listeners
from kuma.xds.envoy.listeners.access_log import Logged
from kuma.xds.envoy.listeners.outbound import OutboundPlace
from kuma.xds.envoy.resource import Entry, TypeUrl
from kuma.xds.envoy.services import clusters
from kuma.xds.envoy.services.clusters import Endpoint
from kuma.xds.envoy.services.service_members import Member, ServiceMembers, Tags, Withheld


class Way(NamedTuple):
    """The way to the proxies of a service, at these places."""

    service: str
    protocol: str
    places: tuple[Endpoint, ...]


Places = Mapping[str, Way]
"""By service."""
Balanced = Mapping[Endpoint, Tags]
"""By address and port."""


def otherwise(
    generated: Generated, networking: Networking, withheld: Withheld, passes_in: bool, passes_out: bool
) -> Iterator[tuple[TypeUrl, Entry]]:
    """Makes what decides about traffic that is meant for no inbound, or for nobody in the mesh."""
    redirected = networking.redirected
    refused = tuple(sorted({inbound.port for index, inbound in enumerate(networking.inbound) if index in withheld}))
    for version in redirected.versions:
        if port := redirected.redirect_port_inbound:
            name = resource_names.inbound_passthrough(version)
            yield TypeUrl.CLUSTER, generated.entry(clusters.passthrough, name, SOURCES[version])
            yield TypeUrl.LISTENER, generated.entry(redirected_listeners.inbound, version, port, passes_in, refused)
        if port := redirected.redirect_port_outbound:
            yield TypeUrl.CLUSTER, generated.entry(clusters.passthrough, resource_names.outbound_passthrough(version))
            yield TypeUrl.LISTENER, generated.entry(redirected_listeners.outbound, version, port, passes_out)


def places(members: ServiceMembers, *, has_pods: bool = False) -> Places:
    """Returns the places of all inbounds of a mesh; one that has several services is the first one's by name.

    Who is at a place also (see `tags.ALSO_AT`) is there only if nobody else is.

    Nothing if no workload calls by places.
    """
    found: dict[Endpoint, tuple[str, Member]] = {}
    for service in sorted(members.services) if members.redirected else ():
        for member in members.members(service):
            address = addresses.parse(member.endpoint[0])
            if address is None or address.is_loopback:
                continue
            _, before = found.setdefault(member.endpoint, (service, member))
            if has_pods and before is not member and _is_of_a_pod(member) and not _is_of_a_pod(before):
                found[member.endpoint] = service, member
    for endpoint, of in list(found.items()) if has_pods else ():
        for other in tag_rules.also_at(dict(of[1].tags)):
            found.setdefault((other, endpoint[1]), of)
    by_service: dict[str, list[Endpoint]] = {}
    for endpoint, (service, _) in sorted(found.items(), key=lambda item: item[0]):
        by_service.setdefault(service, []).append(endpoint)
    return {service: _way(members, service, endpoints) for service, endpoints in by_service.items()}


def _is_of_a_pod(member: Member) -> bool:
    """Tells whether the control plane has written where it is: in Kubernetes nobody else may say this tag."""
    return any(name == target_ref.NAMESPACE for name, _ in member.tags)


def _way(members: ServiceMembers, service: str, endpoints: list[Endpoint]) -> Way:
    protocol = clusters.common_protocol(member.protocol for member in members.members(service))
    return Way(service, protocol, tuple(endpoints))


def balanced(members: ServiceMembers) -> Balanced:
    """Returns the addresses at which a service is called as a whole, with the tags of those who are called there."""
    at: dict[str, dict[str, int]] = {}
    for service in sorted(members.services) if members.redirected else ():
        for member in members.members(service):
            for tag, _ in member.tags:
                if tag.startswith(tag_rules.SERVICE_ADDRESS):
                    found = at.setdefault(tag, {})
                    found[service] = found.get(service, 0) + 1
    made: dict[Endpoint, Tags] = {}
    for tag, services in at.items():
        endpoint, service = _endpoint(tag.removeprefix(tag_rules.SERVICE_ADDRESS)), min(services)
        if endpoint is not None:
            named = next(iter(m for m in members.members(service) if tag in dict(m.tags)))
            is_whole = services[service] == sum(1 for _ in members.members(service))
            part = () if is_whole else ((tag, dict(named.tags)[tag]),)
            made[endpoint] = tuple(sorted(((tag_rules.SERVICE, service), *part)))
    return made


def _endpoint(text: str) -> Endpoint | None:
    """Reads an address and a port; None if it is something else."""
    address, _, port = text.rpartition(":")
    is_one = addresses.parse(address) is not None and not addresses.is_loopback(address)
    return (address, int(port)) if is_one and port.isdecimal() and 1 <= int(port[:6]) <= 65535 else None


def whole(networking: Networking, balanced: Balanced) -> Iterator[tuple[Endpoint, Tags]]:
    """Yields the addresses at which a workload calls services as a whole, with the tags of these."""
    named = {(outbound.address, outbound.port) for outbound in networking.outbound}
    for endpoint, tags in balanced.items() if networking.redirected.redirect_port_outbound else ():
        if endpoint not in named and networking.redirected.reaches(dict(tags)[tag_rules.SERVICE]):
            yield endpoint, tags


def concerned(members: ServiceMembers, before: Places, now: Places, changed: Iterable[str]) -> frozenset[str]:
    """Returns the Dataplanes whose workloads reach other places than before, or a service that has changed."""
    moved = {service for service in before.keys() | now.keys() if before.get(service) != now.get(service)}
    moved.update(changed)
    reaching = ((name, members.dataplanes[name].spec.net.redirected) for name in members.redirected)
    return frozenset(name for name, redirected in reaching if any(map(redirected.reaches, moved)))


def others(networking: Networking, places: Places, balanced: Balanced) -> Iterator[Way]:
    """Yields the services that a workload calls by the places of their proxies, with these.

    Places on its own machine are left out, because what stays there is not redirected; and those of its outbounds. What
    says that it is where a whole service is called is not believed.
    """
    own = {networking.address, *(listen_address(networking, inbound) for inbound in networking.inbound)}
    own.update(other for inbound in networking.inbound for other in tag_rules.also_at(inbound.tags))
    named = {(outbound.address, outbound.port) for outbound in networking.outbound}
    for way in places.values() if networking.redirected.redirect_port_outbound else ():
        found = tuple(one for one in way.places if one[0] not in own and one not in named and one not in balanced)
        if found and networking.redirected.reaches(way.service):
            yield way._replace(places=found)


def source(networking: Networking, listens: str, target: str) -> str:
    """Returns the address that a proxy calls the workload of an inbound from; empty if it does not matter.

    On its own machine, what a proxy sends to other addresses than the loopback's is redirected to itself, but for this.
    """
    if not networking.redirected.redirect_port_inbound or target != listens or addresses.is_loopback(target):
        return ""
    return SOURCES[6 if ":" in target else 4]


def ways(
    generated: Generated, mesh: str, way: Way, mtls: bool, offers: bool, logged: Logged
) -> Iterator[tuple[TypeUrl, Entry]]:
    """Makes the listener of each place, and what they have in common."""
    name = resource_names.direct(way.service)
    yield TypeUrl.CLUSTER, generated.entry(clusters.direct, mesh, way.service, way.protocol, mtls)
    if way.protocol in clusters.HTTP_PROTOCOLS:
        yield TypeUrl.ROUTES, generated.entry(outbound_listeners.routes, name, way.service, name)
    for address, port in way.places:
        place = OutboundPlace(address, port, name, way.protocol, called=name, bound=False)
        yield TypeUrl.LISTENER, generated.entry(outbound_listeners.listener, place, offers, logged)
