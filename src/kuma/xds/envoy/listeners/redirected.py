"""Makes the listeners that the kernel redirects to. They hand each connection on to the listener of the place it was
meant for, if there is one; what is left is decided here.
"""

from __future__ import annotations

from collections.abc import Iterable

from envoy.config.core.v3 import address_pb2, base_pb2
from envoy.config.listener.v3 import listener_components_pb2
from google.protobuf import wrappers_pb2

from kuma.xds.envoy import resource_names
from kuma.xds.envoy.listeners import filters, listener
from kuma.xds.envoy.resource import Entry

_ANY = {4: "0.0.0.0", 6: "::"}  # noqa: S104 - the kernel redirects to the address that a caller came in by
_LOOPBACK = {4: "127.0.0.1", 6: "::1"}
_LOOPBACKS = {4: address_pb2.CidrRange(address_prefix="127.0.0.0"), 6: address_pb2.CidrRange(address_prefix="::1")}
_LOOPBACKS[4].prefix_len.value, _LOOPBACKS[6].prefix_len.value = 8, 128


def inbound(version: int, port: int, passes: bool, refused: tuple[int, ...]) -> Entry:
    """Makes the listener of what others send to places of this machine that are no inbounds.

    It `passes` on to them in plaintext, or is refused; what is meant for the `refused` ports always is.
    """
    name = resource_names.inbound_passthrough(version)
    chains = [_nowhere(name, wrappers_pb2.UInt32Value(value=one)) for one in (port, *refused)]
    return _listener(name, _ANY[version], port, base_pb2.INBOUND, chains, passes)


def outbound(version: int, port: int, passes: bool) -> Entry:
    """Makes the listener of what the workload sends to places that are not in the mesh; it `passes`, or is refused.

    It is on the loopback, where the kernel redirects to what this machine sends: nobody else is to call through it.
    """
    name = resource_names.outbound_passthrough(version)
    itself = _nowhere(name, wrappers_pb2.UInt32Value(value=port))
    itself.filter_chain_match.prefix_ranges.append(_LOOPBACKS[version])
    return _listener(name, _LOOPBACK[version], port, base_pb2.OUTBOUND, [itself], passes)


def _nowhere(name: str, port: wrappers_pb2.UInt32Value) -> listener_components_pb2.FilterChain:
    """Makes a chain that refuses what is meant for a port, such as the listener's own: that would call itself."""
    chain = listener_components_pb2.FilterChain(
        name=f"nowhere:{port.value}", filters=[filters.tcp(name, resource_names.NOWHERE, "_refused")]
    )
    chain.filter_chain_match.destination_port.CopyFrom(port)
    return chain


def _listener(
    name: str,
    address: str,
    port: int,
    direction: base_pb2.TrafficDirection,
    chains: Iterable[listener_components_pb2.FilterChain],
    passes: bool,
) -> Entry:
    found = list(chains)
    if passes:
        found.append(listener_components_pb2.FilterChain(name="passthrough", filters=[filters.tcp(name, name)]))
    return listener.listener(name, address, port, direction, found, redirected=True)
