"""Decides where inbounds may lead to. Pure.

Whoever is admitted to a service reaches its workload as if from the proxy's own machine. So an inbound leads to the
loopback, or to the address that Envoy listens on for it, which is the machine's own if Envoy can listen there; it does
not lead to a port of which it is known that something else trusts the machine there. Administrators allow more.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass

from kuma.base.errors import Violation
from kuma.base.values import addresses, urls
from kuma.base.values.addresses import Address
from kuma.resources.models.dataplane import Networking, listen_address, workload

OwnPorts = Callable[[], Mapping[int, str]]
"""Tells the ports that this control plane listens on, with what they are."""
Place = tuple[str, int]
SETTING = "KUMA_DP_SERVER_ALLOWED_WORKLOADS"
NETWORKS = "KUMA_DP_SERVER_DATAPLANE_NETWORKS"
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_SPECIAL: Mapping[_Network, str] = {
    ipaddress.ip_network("169.254.0.0/16"): "a link-local address, as of metadata services",
    ipaddress.ip_network("fe80::/10"): "a link-local address",
    ipaddress.ip_network("fd00:ec2::/32"): "an address of metadata services",
    ipaddress.ip_network("224.0.0.0/4"): "a multicast address",
    ipaddress.ip_network("ff00::/8"): "a multicast address",
    ipaddress.ip_network("255.255.255.255/32"): "the broadcast address",
}
"""Addresses at which no workload is, whoever listens there."""


@dataclass(frozen=True, slots=True)
class Destination:
    """Addresses that administrators allow inbounds to lead to; at one port, or with 0 at all that nothing else has."""

    network: _Network
    port: int = 0

    @classmethod
    def parse(cls, text: str) -> Destination:
        """Reads `10.0.0.7`, `10.1.0.0/16`, `10.0.0.7:8080` or `[fd00::7]:8080`.

        Raises:
            ValueError: the text is none of these.
        """
        host, colon, port = text.rpartition(":")
        if colon and (host.endswith("]") or ":" not in host):
            if not (port.isdecimal() and 1 <= int(port) <= 65535):
                raise ValueError(f'"{text}" has no port between 1 and 65535 after the colon')
            return cls(_network(host.removeprefix("[").removesuffix("]"), text), int(port))
        return cls(_network(text, text))

    def covers(self, address: Address) -> bool:
        """Tells whether an address is among them, at whatever port."""
        return address in self.network


def _network(host: str, text: str) -> _Network:
    try:
        return ipaddress.ip_network(host)
    except ValueError as error:
        raise ValueError(f'"{text}" is no address and no network: {error}') from None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Knowledge of the machine of a proxy, and what administrators allow."""

    own: Mapping[int, str]
    """Ports of the control plane, with what listens there; it may be on the same machine."""
    administrations: Set[int]
    """Ports of the administration of Envoys on the proxy's machine."""
    allowed: tuple[Destination, ...] = ()
    inbounds: Set[Place] = frozenset()
    """Addresses and ports at which the proxies of other Dataplanes on the machine listen for their callers."""
    networks: tuple[Destination, ...] = ()
    """Where Dataplanes may be called, besides the loopback; everywhere if there are none."""


def refusals(networking: Networking, around: Surroundings) -> Iterator[tuple[int, Violation]]:
    """Yields the inbounds that lead to where they may not, by their index, each with the field and the reason."""
    for index, inbound in enumerate(networking.inbound):
        listens = listen_address(networking, inbound)
        for field, (address, port), may_be in (
            ("servicePort", workload(networking, inbound), (listens,)),
            ("port", (networking.advertised_address or listens, inbound.port), None),  # where callers are sent
        ):
            reason = _refusal(address, port, may_be, networking, around)
            if may_be is None and not reason:
                reason = _misplaced(address, port, around.networks)
            if reason:
                where = f"networking.inbound[{index}].{field}"
                yield index, Violation(where, f"{urls.host_port(address, port)} {reason}")
                break


def _misplaced(address: str, port: int, networks: tuple[Destination, ...]) -> str:
    """Returns why callers may not be sent there: it is outside of where Dataplanes are."""
    found = addresses.parse(address)
    if not networks or found is None or addresses.leads_here(address):
        return ""
    if any(network.covers(found) and network.port in (0, port) for network in networks):
        return ""
    return f"is outside of the networks that Dataplanes may be in; an administrator allows it with {NETWORKS}"


def _refusal(
    address: str, port: int, may_be: Iterable[str] | None, networking: Networking, around: Surroundings
) -> str:
    """Returns why nothing may be reached there; empty if it may.

    `may_be` are the addresses, besides the loopback, that it may have; all if None.
    """
    found = addresses.parse(address)
    if found is None or any(allowed.port == port and allowed.covers(found) for allowed in around.allowed):
        return ""
    is_allowed = any(not allowed.port and allowed.covers(found) for allowed in around.allowed)
    special = next((what for network, what in _SPECIAL.items() if found in network), "")
    leads_here = addresses.leads_here(address)
    if special and not is_allowed:
        return f"is {special}, and no workload; {_REMEDY}"
    if not (leads_here or is_allowed or may_be is None or found in map(addresses.parse, may_be)):
        return f"is neither on the loopback nor at the address of this inbound, so on another machine; {_REMEDY}"
    if leads_here and port in around.own:
        return f"may be this control plane's own {around.own[port]}"
    if may_be is not None and (addresses.reached(address), port) in around.inbounds:
        return f"is the inbound of another Dataplane, which has callers of its own, and no workload; {_REMEDY}"
    beside = found == addresses.parse(networking.address) or may_be is not None
    if (leads_here or (beside and not is_allowed)) and port in around.administrations:
        return "is the administration of an Envoy, and no workload"
    return ""


_REMEDY = f"an administrator allows it with {SETTING}"
