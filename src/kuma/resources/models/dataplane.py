"""The Dataplane: where a workload listens, what it is, and whom it calls."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StrictBool, StrictInt

from kuma.base.errors import Violation
from kuma.base.values import addresses, host_names
from kuma.resources import tags as tag_rules
from kuma.resources.models.blocks import dataplane_services, metrics, service_probe, transparent_proxying
from kuma.resources.models.blocks.metrics import MetricsBackend
from kuma.resources.models.blocks.service_probe import ServiceProbe
from kuma.resources.models.blocks.transparent_proxying import TransparentProxying
from kuma.resources.models.stored_only import field_not_done
from kuma.resources.resource import Model, plain

_GATEWAY_TYPES = ("DELEGATED", "BUILTIN")
"""In the order of their numbers in the original's protobuf enumeration."""
PROTOCOLS = ("grpc", "http", "http2", "kafka", "tcp")
DEFAULT_ADMIN_PORT = 9901
_SERVICE_NAME = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)


class Health(Model):
    """Health of the workload."""

    ready: StrictBool = False


class Inbound(Model):
    """A port of the workload: Envoy listens on `address`:`port` and passes on to `serviceAddress`:`servicePort`."""

    port: StrictInt
    name: str = ""
    service_port: StrictInt = 0
    service_address: str = ""
    address: str = ""
    tags: dict[str, str] = {}
    health: Health | None = None
    service_probe: ServiceProbe | None = None
    state: Literal["Ready", "NotReady", "Ignored"] = "Ready"
    written_protocol: str = Field(default="", alias="protocol")
    """The protocol as newer files have it; it stands among the tags, too."""

    @property
    def service(self) -> str:
        return self.tags[tag_rules.SERVICE]

    @property
    def known_tags(self) -> Mapping[str, str]:
        """The tags that it is selected by: those that are written, and its zone."""
        return tag_rules.with_zone(self.tags)

    @property
    def protocol(self) -> str:
        return self.tags.get(tag_rules.PROTOCOL, "tcp").lower()

    @property
    def is_ready(self) -> bool:
        """Tells whether clients should be sent here."""
        return self.state == "Ready" and (self.health is None or self.health.ready)


class Outbound(Model):
    """A local port at which the workload reaches another service. Nobody listens if its reference leads to none."""

    port: StrictInt
    address: str = "127.0.0.1"
    tags: dict[str, str] = {}
    backend_ref: Any = None

    @property
    def service(self) -> str:
        return self.tags[tag_rules.SERVICE]


class Admin(Model):
    """Port of Envoy's own administration interface, which listens on loopback only."""

    port: StrictInt = 0


def _gateway_type(value: object) -> object:
    """Reads an enumeration, which may be written as its number (protobuf's JSON mapping)."""
    return _GATEWAY_TYPES[value] if type(value) is int and 0 <= value < len(_GATEWAY_TYPES) else value


class Gateway(Model):
    """A gateway in front of the mesh: a proxy with an identity and outbounds, into which no service of the mesh calls.

    DELEGATED: a workload such as Kong or nginx accepts the requests. BUILTIN: Envoy would; nothing listens for it here.
    """

    tags: dict[str, str] = {}
    type: Annotated[Literal["DELEGATED", "BUILTIN"], BeforeValidator(_gateway_type)] = "DELEGATED"

    @property
    def service(self) -> str:
        return self.tags[tag_rules.SERVICE]


class Networking(Model):
    """The addresses and ports of a proxy."""

    address: str = ""
    advertised_address: str = ""
    inbound: tuple[Inbound, ...] = ()
    outbound: tuple[Outbound, ...] = ()
    gateway: Gateway | None = None
    transparent_proxying: TransparentProxying | None = None
    admin: Admin | None = None

    @property
    def calls(self) -> tuple[Outbound, ...]:
        """The outbounds that lead to a service."""
        return tuple(outbound for outbound in self.outbound if tag_rules.SERVICE in outbound.tags)

    @property
    def redirected(self) -> TransparentProxying:
        """Returns what the kernel brings to this proxy, which may be nothing."""
        return self.transparent_proxying or transparent_proxying.NONE

    @property
    def tag_sets(self) -> tuple[Mapping[str, str], ...]:
        """The tags of every inbound, and of the gateway: whatever this proxy is, it is by one of these."""
        gateway = (tag_rules.with_zone(self.gateway.tags),) if self.gateway else ()
        return (*(inbound.known_tags for inbound in self.inbound), *gateway)


class DataplaneSpec(Model):
    """Spec of a Dataplane."""

    networking: Networking | None = None
    probes: Any = None
    metrics: MetricsBackend | None = None

    @property
    def net(self) -> Networking:
        """The networking block of a validated Dataplane."""
        assert self.networking is not None
        return self.networking

    @property
    def services(self) -> tuple[str, ...]:
        """The distinct service names, sorted: each is an identity of this proxy."""
        found = {inbound.tags[tag_rules.SERVICE] for inbound in self.net.inbound}
        if self.net.gateway:
            found.add(self.net.gateway.tags[tag_rules.SERVICE])
        return tuple(sorted(found))

    @property
    def tag_values(self) -> Mapping[str, frozenset[str]]:
        """Every tag with all its values over all inbounds and the gateway."""
        values: dict[str, set[str]] = {}
        for tags in self.net.tag_sets:
            for name, value in tags.items():
                values.setdefault(name, set()).add(value)
        return {name: frozenset(found) for name, found in values.items()}


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


def listen_address(networking: Networking, inbound: Inbound) -> str:
    """Returns the address that Envoy binds for this inbound."""
    return inbound.address or networking.address


def place(networking: Networking, inbound: Inbound) -> tuple[str, int]:
    """Returns the address and port at which callers reach this inbound."""
    return listen_address(networking, inbound), inbound.port


def beside(networking: Networking, inbound: Inbound) -> Iterator[Inbound]:
    """Yields the other inbounds at the same place: other services of the same workload."""
    for other in networking.inbound if len(networking.inbound) > 1 else ():
        if (
            other is not inbound
            and other.port == inbound.port
            and place(networking, other) == place(networking, inbound)
        ):
            yield other


def admin_port(networking: Networking) -> int:
    """Returns the port of Envoy's own administration interface."""
    return (networking.admin.port if networking.admin else 0) or DEFAULT_ADMIN_PORT


def workload(networking: Networking, inbound: Inbound) -> tuple[str, int]:
    """Address and port of the workload itself."""
    return (
        inbound.service_address or listen_address(networking, inbound),
        inbound.service_port or inbound.port,
    )


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
