"""Writes the rules of a redirection in the language of nftables.

All of them stand in one table of ours, for IPv4 and IPv6 together. It is replaced and removed in one transaction, so
there is never a moment with half of the rules, and nobody else's are touched.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from kuma.transparent_proxy.redirection import SOURCES, IpFamilyMode, Redirection

TABLE = "inet kuma_mesh"
_AFTER_OTHERS = 5
"""Nat is decided by the first table that has an opinion: where containers are published by others, theirs go first."""
_DESTINATION_NAT = -100
"""The kernel's priority of it."""


def removal() -> str:
    """Returns what removes the rules, whether they are there or not."""
    return f"table {TABLE} {{}}\ndelete table {TABLE}\n"


def ruleset(redirection: Redirection) -> str:
    """Returns what puts these rules in the place of those that were there before, if any."""
    chains = [
        _chain("KUMA_MESH_OUTBOUND", "nat", "output", _DESTINATION_NAT + _AFTER_OTHERS, _outbound(redirection)),
    ]
    if redirection.inbound_port is not None:
        inbound = _inbound(redirection, redirection.inbound_port)
        chains.insert(0, _chain("KUMA_MESH_INBOUND", "nat", "prerouting", _DESTINATION_NAT + _AFTER_OTHERS, inbound))
    if redirection.drops_invalid:
        chains.append(_chain("KUMA_MESH_INVALID", "filter", "prerouting", -150, ["ct state invalid drop"]))
    return f"{removal()}table {TABLE} {{\n{''.join(chains)}}}\n"


def _chain(name: str, kind: str, hook: str, priority: int, rules: Iterable[str]) -> str:
    lines = [f"type {kind} hook {hook} priority {priority}; policy accept;", *rules]
    return "".join((f"\tchain {name} {{\n", *(f"\t\t{line}\n" for line in lines), "\t}\n"))


def _inbound(redirection: Redirection, port: int) -> Iterator[str]:
    """Redirects what others send to this machine itself. What it only forwards, is between others."""
    yield from _families(redirection.mode)
    yield "fib daddr type != local return"
    yield from _ports_return(redirection.excluded_inbound_ports)
    yield from _addresses_return("saddr", redirection.excluded_inbound_addresses)
    yield f"meta l4proto tcp redirect to :{port}"


def _outbound(redirection: Redirection) -> Iterator[str]:
    """Redirects what this machine sends, but for what the proxy itself sends, and what stays on the machine.

    The proxy's calls of its own inbound are the exception: they are calls of the mesh, which another machine would have
    received.
    """
    yield from _families(redirection.mode)
    for keyword, version in (("ip", 4), ("ip6", 6)):
        yield f'oifname "lo" {keyword} saddr {SOURCES[version]} return'
    if redirection.inbound_port is not None:
        own = f'oifname "lo" meta skuid {redirection.uid}'
        if redirection.excluded_inbound_ports:
            yield f"{own} tcp dport {_set(redirection.excluded_inbound_ports)} return"
        for keyword, loopback in (("ip", "127.0.0.0/8"), ("ip6", "::1")):
            yield f"{own} {keyword} daddr != {loopback} meta l4proto tcp redirect to :{redirection.inbound_port}"
    yield 'oifname "lo" return'
    yield f"meta skuid {redirection.uid} return"
    for those in redirection.left_alone:
        at = f" tcp dport {_set(those.ports)}" if those.ports else ""
        yield f"meta skuid {_set(those.uids)}{at} return"
    yield from _ports_return(redirection.excluded_outbound_ports)
    yield from _addresses_return("daddr", redirection.excluded_outbound_addresses)
    yield f"meta l4proto tcp redirect to :{redirection.outbound_port}"


def _families(mode: IpFamilyMode) -> Iterator[str]:
    if mode is IpFamilyMode.IPV4:
        yield "meta nfproto != ipv4 return"


def _ports_return(ports: Sequence[str]) -> Iterator[str]:
    if ports:
        yield f"tcp dport {_set(ports)} return"


def _addresses_return(side: str, networks: Sequence[str]) -> Iterator[str]:
    for keyword, of_version in (
        ("ip", [n for n in networks if ":" not in n]),
        ("ip6", [n for n in networks if ":" in n]),
    ):
        if of_version:
            yield f"{keyword} {side} {_set(of_version)} return"


def _set(values: Sequence[str]) -> str:
    return f"{{ {', '.join(values)} }}"
