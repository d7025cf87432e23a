"""IP addresses as text."""

from __future__ import annotations

import functools
import ipaddress
from urllib.parse import unquote

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@functools.lru_cache(maxsize=10_000)
def parse(text: str) -> Address | None:
    """Returns the address in `text`, IPv4 if it is one that is written as IPv6; None if it is none."""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    return (found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None) or found


def written(text: str) -> str:
    """Returns an address as it is written everywhere; empty if the text is none."""
    found = parse(text)
    return str(found) if found is not None else ""


def is_loopback(text: str) -> bool:
    """Tells whether this machine calls itself by this address."""
    found = parse(text)
    return found is not None and found.is_loopback


def are_of_one_machine(one: str, other: str) -> bool:
    """Tells whether these are the same address, or both this machine's own of the loopback."""
    return one == other or (is_loopback(one) and is_loopback(other))


def leads_here(text: str) -> bool:
    """Tells whether a connection to this address stays on its machine; `0.0.0.0` leads to the loopback, too."""
    found = parse(text)
    return found is not None and (found.is_loopback or found.is_unspecified)


def reached(text: str) -> str:
    """Returns the address that a connection to this one reaches, as it is written everywhere; empty if it is none."""
    found = parse(text)
    if found is not None and found.is_unspecified:
        return "127.0.0.1" if found.version == 4 else "::1"
    return written(text)


def holder(text: str) -> str:
    """Returns whose address it is: of IPv6 the /64 that one customer or machine has as a whole (RFC 6177)."""
    found = parse(text)
    if isinstance(found, ipaddress.IPv6Address) and not found.is_loopback:
        return str(ipaddress.IPv6Network((found, 64), strict=False))
    return str(found) if found is not None else text


def holder_of_peer(peer: str) -> str:
    """Returns whose address it is, which may be written as gRPC writes it: `ipv4:10.0.0.1`, `ipv6:%5B::1%5D`."""
    return holder(unquote(peer).partition("[")[2].rstrip("]") or peer)
