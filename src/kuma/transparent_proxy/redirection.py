"""What is redirected to a proxy, and what is left alone; and the proxy's places that both sides have to agree on."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from kuma.base.errors import Misconfigured

INBOUND_PORT, OUTBOUND_PORT = 15006, 15001
"""Where a proxy takes what others send to its machine, and what its workload sends to others."""
SOURCES = {4: "127.0.0.6", 6: "::6"}
"""By IP version: the addresses that a proxy calls its own workload from. By them the kernel tells these connections
from a proxy's calls of a service that it is itself a part of, which go to its inbound as all calls do."""
_PORTS = range(1, 65536)
_UIDS = range(2**32 - 1)
_LEFT_ALONE = re.compile(r"((?P<protocol>tcp|udp):)?((?P<ports>[^:]+):)?(?P<uids>[^:]+)")


class IpFamilyMode(StrEnum):
    """Versions of IP that are redirected."""

    DUALSTACK = "dualstack"
    IPV4 = "ipv4"


@dataclass(frozen=True, slots=True)
class LeftAlone:
    """What processes of these users send to these ports; no ports are all ports. Both are single values or ranges."""

    uids: tuple[str, ...]
    ports: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Redirection:
    """What is redirected to the proxy that runs as the user `uid`. Ports and addresses may be ranges and networks."""

    uid: int
    inbound_port: int | None = INBOUND_PORT
    """None if what others send is not redirected."""
    outbound_port: int = OUTBOUND_PORT
    mode: IpFamilyMode = IpFamilyMode.DUALSTACK
    excluded_inbound_ports: tuple[str, ...] = ()
    excluded_inbound_addresses: tuple[str, ...] = ()
    """Of callers."""
    excluded_outbound_ports: tuple[str, ...] = ()
    excluded_outbound_addresses: tuple[str, ...] = ()
    left_alone: tuple[LeftAlone, ...] = ()
    drops_invalid: bool = False


def ports(option: str, text: str) -> tuple[str, ...]:
    """Reads ports and ranges, separated by commas; they come in order, and overlapping ones as one.

    Raises:
        Misconfigured: one is none; names the option.
    """
    return _merged(
        _range(option, part, _PORTS, "a port, such as 22, or a range, such as 8000-8080") for part in _parts(text)
    )


def addresses(option: str, text: str) -> tuple[str, ...]:
    """Reads addresses and networks, separated by commas; those that lie within another one are left out.

    Raises:
        Misconfigured: one is none; names the option.
    """
    found: dict[int, list[ipaddress.IPv4Network | ipaddress.IPv6Network]] = {4: [], 6: []}
    for part in _parts(text):
        try:
            network = ipaddress.ip_network(part)
        except ValueError:
            reason = "has to be an IP address or a network, such as 10.0.0.0/8"
            raise Misconfigured(f'{option}: "{part[:100]}" {reason}') from None
        found[network.version].append(network)
    merged = [*ipaddress.collapse_addresses(found[4]), *ipaddress.collapse_addresses(found[6])]  # type: ignore[type-var]
    return tuple(str(network) for network in merged)


def left_alone(option: str, text: str) -> LeftAlone | None:
    """Reads `[protocol:][ports:]uids`, as the original writes it; None if it is about UDP, which nobody redirects.

    Raises:
        Misconfigured: it is something else; names the option.
    """
    found = _LEFT_ALONE.fullmatch(text)
    if found is None:
        raise Misconfigured(f'{option}: "{text[:100]}" has to be [tcp:|udp:][ports:]uids, such as tcp:22,80:1000-2000')
    what = "the id of a user, such as 1000, or a range, such as 1000-2000"
    uids = _merged(_range(option, part, _UIDS, what) for part in _parts(found["uids"]))
    chosen = () if found["ports"] in ("*", None) else ports(option, found["ports"])
    return None if found["protocol"] == "udp" else LeftAlone(uids, chosen)


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _range(option: str, text: str, allowed: range, what: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    ends = [first, last if dash else first]
    if all(end.isascii() and end.isdecimal() and len(end) <= 10 and int(end) in allowed for end in ends):
        low, high = map(int, ends)
        if low <= high:
            return low, high
    raise Misconfigured(f'{option}: "{text[:100]}" has to be {what}, from {allowed[0]} to {allowed[-1]}')


def _merged(ranges: Iterable[tuple[int, int]]) -> tuple[str, ...]:
    found: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if found and low <= found[-1][1] + 1:
            found[-1] = found[-1][0], max(high, found[-1][1])
        else:
            found.append((low, high))
    return tuple(str(low) if low == high else f"{low}-{high}" for low, high in found)
