"""Rules that a Dataplane keeps to besides its structure, and fields of it that have no effect here."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping

from kuma.base.errors import Violation
from kuma.base.values import addresses, host_names
from kuma.resources import tags as tag_rules
from kuma.resources.models.blocks import dataplane_services, metrics, service_probe, transparent_proxying
from kuma.resources.models.dataplane import (
    PROTOCOLS,
    DataplaneSpec,
    Gateway,
    Inbound,
    Networking,
    Outbound,
    admin_port,
    listen_address,
    workload,
)
from kuma.resources.models.stored_only import field_not_done
from kuma.resources.resource import plain

_SERVICE_NAME = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)


def validate(spec: DataplaneSpec) -> Iterator[Violation]:
    """Refuses a Dataplane that breaks a rule which its structure alone does not express."""
    networking = spec.networking
    if networking is None:
        yield Violation("networking", "must be defined")
        return
    if not networking.inbound and networking.gateway is None:
        yield Violation("networking", "has to contain at least one inbound interface or gateway")
    yield from _address("networking.address", networking.address)
    if networking.advertised_address:
        yield from _address("networking.advertisedAddress", networking.advertised_address)
    yield from transparent_proxying.validate("networking.transparentProxying", networking.redirected)
    yield from _ports(networking)
    if spec.metrics is not None:
        yield from metrics.validate_conf("metrics.conf", spec.metrics.conf)
    if networking.gateway is not None:
        yield from _gateway(spec, networking, networking.gateway)
    for index, inbound in enumerate(networking.inbound):
        yield from _inbound(networking, inbound, f"networking.inbound[{index}]")
    for index, outbound in enumerate(networking.outbound):
        yield from _outbound(outbound, f"networking.outbound[{index}]")


def _ports(networking: Networking) -> Iterator[Violation]:
    taken: dict[tuple[str, int], str] = {}
    if networking.admin and networking.admin.port:
        yield from _port("networking.admin.port", networking.admin.port)
        taken["127.0.0.1", networking.admin.port] = "networking.admin.port"
    redirected = networking.redirected.redirect_port_inbound, networking.redirected.redirect_port_outbound
    listeners = [
        (f"networking.inbound[{i}].port", listen_address(networking, inbound), inbound.port)
        for i, inbound in enumerate(networking.inbound)
    ] + [(f"networking.outbound[{i}].port", out.address, out.port) for i, out in enumerate(networking.outbound)]
    for field, address, port in listeners:
        first = taken.setdefault((address, port), field)
        if first != field and not _go_together(networking, first, field):
            yield Violation(field, f"{address}:{port} is already taken by {first}; every listener needs its own")
        elif port in redirected:
            yield Violation(field, f"{port} is where transparent proxying redirects to; choose another port")


def _go_together(networking: Networking, *fields: str) -> bool:
    """Tells whether two fields are ports of inbounds that are one place: different services of one workload."""
    named = {f"networking.inbound[{index}].port": inbound for index, inbound in enumerate(networking.inbound)}
    found = [named[field] for field in fields if field in named]
    if len(found) < len(fields) or any(inbound.service_probe for inbound in found):
        return False
    ways = {(workload(networking, inbound), inbound.protocol) for inbound in found}
    return len(ways) == 1 and len({inbound.tags.get(tag_rules.SERVICE) for inbound in found}) == len(found)


def _gateway(spec: DataplaneSpec, networking: Networking, gateway: Gateway) -> Iterator[Violation]:
    kind = gateway.type.lower()
    if networking.inbound:
        yield Violation("networking.inbound", f"inbound cannot be defined for {kind} gateways")
    if gateway.type == "BUILTIN":
        if networking.outbound:
            yield Violation("networking.outbound", "outbound cannot be defined for builtin gateways")
        if spec.probes is not None:
            yield Violation("networking.probes", "probes cannot be defined for builtin gateways")
    path, protocol = "networking.gateway.tags", gateway.tags.get(tag_rules.PROTOCOL, "tcp")
    if not gateway.tags.get(tag_rules.SERVICE):
        yield Violation(path, f'mandatory tag "{tag_rules.SERVICE}" is missing')
    if protocol != "tcp":
        reason = f'other values than tcp are not allowed, provided value "{plain(protocol)}"'
        yield Violation(f'{path}["{tag_rules.PROTOCOL}"]', reason)
    yield from _tags(path, gateway.tags)


def _inbound(networking: Networking, inbound: Inbound, path: str) -> Iterator[Violation]:
    yield from _port(f"{path}.port", inbound.port)
    if inbound.service_port:
        yield from _port(f"{path}.servicePort", inbound.service_port)
    if inbound.address and not _is_ip(inbound.address):
        yield Violation(f"{path}.address", "address has to be valid IP address")
    if inbound.service_address and not (_is_ip(inbound.service_address) or host_names.is_one(inbound.service_address)):
        yield Violation(f"{path}.serviceAddress", "serviceAddress has to be valid IP address or domain name")
    listens = listen_address(networking, inbound)
    takes_its_place = workload(networking, inbound) == (listens, inbound.port)
    if takes_its_place and transparent_proxying.binds(networking.redirected, listens):
        if inbound.service_address:
            yield Violation(f"{path}.serviceAddress", _CALLS_ITSELF)
        else:
            yield Violation(f"{path}.servicePort", f"{_CALLS_ITSELF}, {_OTHER_PORT}")
    yield from _administration(networking, inbound, f"{path}.servicePort")
    if inbound.service_probe is not None:
        yield from service_probe.validate(f"{path}.serviceProbe", inbound.service_probe)
    yield from _tags(f"{path}.tags", inbound.tags)
    protocol = inbound.tags.get(tag_rules.PROTOCOL)
    if tag_rules.SERVICE not in inbound.tags:
        labels = " or ".join(dataplane_services.SERVICE_LABELS)
        or_else = (
            "" if "tags" in inbound.model_fields_set else f", or a label of the Dataplane, {labels}, that names it"
        )
        yield Violation(f'{path}.tags["{tag_rules.SERVICE}"]', f"tag has to exist{or_else}")
    if inbound.written_protocol and inbound.written_protocol != protocol:
        two = f'"{plain(inbound.written_protocol)}", and the tag {tag_rules.PROTOCOL} "{plain(protocol)}"'
        yield Violation(f"{path}.protocol", f"is {two}; leave out one")
    if protocol is not None and protocol.lower() not in PROTOCOLS:
        yield Violation(
            f'{path}.tags["{tag_rules.PROTOCOL}"]',
            f'tag "{tag_rules.PROTOCOL}" has an invalid value "{protocol}". Allowed values: {", ".join(PROTOCOLS)}',
        )


def _administration(networking: Networking, inbound: Inbound, field: str) -> Iterator[Violation]:
    """Refuses inbounds that lead to Envoy's own administration, which can stop and rewrite the proxy."""
    address, port = workload(networking, inbound)
    if port == admin_port(networking) and (addresses.leads_here(address) or address == networking.address):
        yield Violation(field, f"{address}:{port} is the administration of this proxy's Envoy, and no workload")


def _outbound(outbound: Outbound, path: str) -> Iterator[Violation]:
    yield from _port(f"{path}.port", outbound.port)
    if not _is_ip(outbound.address):
        yield Violation(f"{path}.address", "address has to be valid IP address")
    if not outbound.tags.get(tag_rules.SERVICE) and (outbound.tags or outbound.backend_ref is None):
        yield Violation(f"{path}.tags", f'mandatory tag "{tag_rules.SERVICE}" is missing')
    yield from _tags(f"{path}.tags", outbound.tags)


def _tags(path: str, tags: Mapping[str, str]) -> Iterator[Violation]:
    """Checks tags. Of a service that breaks the stricter rules of SPIFFE IDs, no more than that is said."""
    service = tags.get(tag_rules.SERVICE)
    if not service or (_SERVICE_NAME.fullmatch(service) and service not in (".", "..")):
        yield from tag_rules.validate(path, tags)
        return
    yield from tag_rules.validate(path, {name: value for name, value in tags.items() if name != tag_rules.SERVICE})
    yield Violation(
        f'{path}["{tag_rules.SERVICE}"]',
        f'"{plain(service)}" cannot be part of a SPIFFE ID; use letters, digits, dots, dashes and underscores only',
    )


def validate_names(spec: DataplaneSpec, mesh: str) -> Iterator[Violation]:
    """Bounds names: what callers ask for in a TLS handshake has to fit into it.

    An inbound is asked for by its service; by further tags only if an outbound names them.
    """
    if spec.networking is None:
        return
    for index, inbound in enumerate(spec.networking.inbound):
        service = {name: value for name, value in inbound.tags.items() if name == tag_rules.SERVICE}
        yield from _server_name(f"networking.inbound[{index}].tags", mesh, service)
    if spec.networking.gateway is not None:
        service = {n: v for n, v in spec.networking.gateway.tags.items() if n == tag_rules.SERVICE}
        yield from _server_name("networking.gateway.tags", mesh, service)
    for index, outbound in enumerate(spec.networking.outbound):
        yield from _server_name(f"networking.outbound[{index}].tags", mesh, outbound.tags)


def _server_name(path: str, mesh: str, tags: Mapping[str, str]) -> Iterator[Violation]:
    if not tags.get(tag_rules.SERVICE):
        return
    excess = len(tag_rules.server_name(mesh, tags).encode()) - tag_rules.LONGEST_SERVER_NAME
    if excess > 0:
        field = f'{path}["{tag_rules.SERVICE}"]' if len(tags) == 1 else path
        what = "the service" if len(tags) == 1 else "the tags"
        yield Violation(
            field,
            f"is too long by {excess} characters: {what} and the mesh together make the server name of a TLS "
            f"handshake, which has at most {tag_rules.LONGEST_SERVER_NAME}",
        )


def not_done(spec: DataplaneSpec) -> Iterator[Violation]:
    """Says what of a Dataplane has no effect here, and what that means."""
    networking = spec.net
    yield from field_not_done(
        (
            ("probes", spec.probes, "no probe is answered in the workload's place"),
            ("networking.gateway.type", _builtin(networking), "nothing listens for a builtin gateway"),
        )
    )
    yield from transparent_proxying.not_done("networking.transparentProxying", networking.redirected)
    if spec.metrics is not None:
        yield from metrics.not_done("metrics.conf", spec.metrics.conf)
    for index, outbound in enumerate(networking.outbound):
        service = outbound.tags.get(tag_rules.SERVICE)
        if service and service == dataplane_services.called(outbound.backend_ref):
            continue
        meaning = f'the service "{service}" is called that the tags name' if service else _NOBODY_LISTENS
        yield from field_not_done(((f"networking.outbound[{index}].backendRef", outbound.backend_ref, meaning),))


def _builtin(networking: Networking) -> str | None:
    return networking.gateway.type if networking.gateway and networking.gateway.type == "BUILTIN" else None


_NOBODY_LISTENS = "nobody listens at its port: it refers to no service of this mesh by its name; name one by tags"
_OTHER_PORT = (
    "or Envoy would call itself; set servicePort to the port of the workload, or serviceAddress to 127.0.0.1 if it "
    "listens there, or redirectPortInbound under transparentProxying if that is what brings callers here"
)
_CALLS_ITSELF = "serviceAddress and servicePort has to differ from address and port"


def _port(field: str, port: int) -> Iterator[Violation]:
    if not 1 <= port <= 65535:
        yield Violation(field, "port must be in the range [1, 65535]")


def _address(field: str, address: str) -> Iterator[Violation]:
    if not address:
        yield Violation(field, "address can't be empty")
    elif _is_ip(address) and ipaddress.ip_address(address).is_unspecified:
        yield Violation(field, "must not be 0.0.0.0 or ::")
    elif not (_is_ip(address) or host_names.is_one(address)):
        yield Violation(field, "address has to be valid IP address or domain name")


def _is_ip(text: str) -> bool:
    """Tells whether this is an IP address without a zone: `fe80::1%eth0` means something on one machine only."""
    return "%" not in text and addresses.parse(text) is not None
