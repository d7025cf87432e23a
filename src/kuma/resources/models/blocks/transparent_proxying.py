"""Transparent proxying of a Dataplane: the kernel brings the workload's traffic to the proxy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, StrictInt

from kuma.base.errors import Violation
from kuma.base.values import addresses
from kuma.resources.models.stored_only import field_not_done
from kuma.resources.resource import Model

_FAMILIES = ("UnSpecified", "DualStack", "IPv4", "IPv6")
"""In the order of their numbers in the original's protobuf enumeration."""
_HISTORIC_V6_PORT = 15010
"""The original's default of old, which it takes for the port of IPv4."""


def _family(value: object) -> object:
    """Reads an enumeration: its number (protobuf's JSON mapping), or its name, also in lower case, as pages have it."""
    if type(value) is int and 0 <= value < len(_FAMILIES):
        return _FAMILIES[value]
    return next((name for name in _FAMILIES if isinstance(value, str) and name.lower() == value.lower()), value)


class TransparentProxying(Model):
    """The ports that the kernel redirects to, as `kumactl install transparent-proxy` was told; 0 is none."""

    redirect_port_inbound: StrictInt = 0
    redirect_port_outbound: StrictInt = 0
    redirect_port_inbound_v6: StrictInt = 0
    ip_family_mode: Annotated[Literal["UnSpecified", "DualStack", "IPv4", "IPv6"], BeforeValidator(_family)] = (
        "UnSpecified"
    )
    reachable_services: tuple[str, ...] = ()
    direct_access_services: tuple[str, ...] = ()
    reachable_backends: Any = None

    @property
    def versions(self) -> tuple[int, ...]:
        """The versions of IP that are redirected; both if nothing is said."""
        return {"IPv4": (4,), "IPv6": (6,)}.get(self.ip_family_mode, (4, 6))

    def reaches(self, service: str) -> bool:
        """Tells whether the workload calls a service as a part of the mesh; of all, if none are named."""
        return not self.reachable_services or service in self.reachable_services


NONE = TransparentProxying()
"""Nothing is redirected."""


def binds(proxying: TransparentProxying, address: str) -> bool:
    """Tells whether a proxy listens at an inbound's address, rather than have the kernel bring what is meant for it.

    What is meant for the loopback stays there.
    """
    return not proxying.redirect_port_inbound or addresses.is_loopback(address)


def binds_outbound(proxying: TransparentProxying, address: str) -> bool:
    """Tells the same of the address of an outbound."""
    return not proxying.redirect_port_outbound or addresses.is_loopback(address)


def validate(path: str, proxying: TransparentProxying) -> Iterator[Violation]:
    """Refuses ports that are none, and one for both directions."""
    inbound, outbound = proxying.redirect_port_inbound, proxying.redirect_port_outbound
    for name, port in (("redirectPortInbound", inbound), ("redirectPortOutbound", outbound)):
        if not 0 <= port <= 65535:
            yield Violation(f"{path}.{name}", "port must be in the range [0, 65535]")
    if inbound and inbound == outbound:
        yield Violation(f"{path}.redirectPortOutbound", "has to differ from redirectPortInbound")


def not_done(path: str, proxying: TransparentProxying) -> Iterator[Violation]:
    """Says what of it has no effect here, and what that means."""
    same = (0, _HISTORIC_V6_PORT, proxying.redirect_port_inbound)
    v6 = proxying.redirect_port_inbound_v6
    yield from field_not_done(
        (
            (f"{path}.redirectPortInboundV6", None if v6 in same else v6, "IPv6 goes to redirectPortInbound, too"),
            (f"{path}.reachableBackends", proxying.reachable_backends, "use reachableServices"),
        )
    )
