"""The Dataplane: where a workload listens, what it is, and whom it calls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StrictBool, StrictInt

from kuma.resources import tags as tag_rules
from kuma.resources.models.blocks import transparent_proxying
from kuma.resources.models.blocks.metrics import MetricsBackend
from kuma.resources.models.blocks.service_probe import ServiceProbe
from kuma.resources.models.blocks.transparent_proxying import TransparentProxying
from kuma.resources.resource import Model

_GATEWAY_TYPES = ("DELEGATED", "BUILTIN")
"""In the order of their numbers in the original's protobuf enumeration."""
PROTOCOLS = ("grpc", "http", "http2", "kafka", "tcp")
DEFAULT_ADMIN_PORT = 9901


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
