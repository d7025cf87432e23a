"""Makes listeners and routes of their parts, the same way for callers and for workloads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from functools import lru_cache

from envoy.config.core.v3 import base_pb2
from envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.extensions.filters.listener.tls_inspector.v3 import tls_inspector_pb2
from google.protobuf import wrappers_pb2

from kuma.xds.envoy import resource_names, tls
from kuma.xds.envoy.listeners import reports
from kuma.xds.envoy.resource import Entry, field_of, head_of, serialised, type_url_of
from kuma.xds.envoy.services.clusters import socket

_INSPECTION = timedelta(seconds=1)
EVERY_REQUEST = route_components_pb2.RouteMatch(prefix="/")


def listener(
    name: str,
    address: str,
    port: int,
    direction: base_pb2.TrafficDirection,
    chains: Sequence[listener_components_pb2.FilterChain],
    *,
    inspects: bool = False,
    reported: bool = False,
    bound: bool = True,
    redirected: bool = False,
) -> Entry:
    """Makes a listener; see `head`."""
    made = head(
        name, address, port, direction, inspects=inspects, reported=reported, bound=bound, redirected=redirected
    )
    whole = b"".join((serialised(made), *(field_of(_CHAINS, serialised(chain)) for chain in chains)))
    return Entry.serialised(name, _LISTENER, whole)


def joined(name: str, front: bytes, chains: Iterable[tuple[bytes, ...]]) -> Entry:
    """Makes a listener of its head and its filter chains, as they travel: each of parts, which are kept once."""
    parts = [front]
    for chain in chains:
        parts += head_of(_CHAINS, sum(map(len, chain))), *chain
    return Entry.serialised(name, _LISTENER, *parts)


_LISTENER = type_url_of(listener_pb2.Listener())
_CHAINS = listener_pb2.Listener.FILTER_CHAINS_FIELD_NUMBER


def head(
    name: str,
    address: str,
    port: int,
    direction: base_pb2.TrafficDirection,
    *,
    inspects: bool = False,
    reported: bool = False,
    bound: bool = True,
    redirected: bool = False,
) -> listener_pb2.Listener:
    """Makes a listener without filter chains.

    One that `inspects` looks at what a caller begins with to tell which chain is meant.

    Of one that is `reported` the control plane is told of each connection. One that is not `bound` is found by what
    the kernel has `redirected` to another one: by the address and port that were meant.
    """
    made = listener_pb2.Listener(
        name=name,
        address=socket(address, port),
        stat_prefix=resource_names.stat_name(name),
        traffic_direction=direction,
    )
    made.enable_reuse_port.value = False
    if not bound:
        made.bind_to_port.value = False
    if redirected:
        made.use_original_dst.value = True
    if reported:
        made.access_log.append(reports.of_connections())
    if inspects:
        inspector = tls.packed(tls_inspector_pb2.TlsInspector())
        made.listener_filters.add(name="envoy.filters.listener.tls_inspector", typed_config=inspector)
        # Where the server speaks first, a plaintext caller sends nothing to inspect: it is not kept waiting for long.
        made.listener_filters_timeout.FromTimedelta(_INSPECTION)
        made.continue_on_listener_filters_timeout = True
    return made


def routes(name: str, service: str, route: bytes) -> Entry:
    """Makes the routes of a listener, of the one that it has: the same for whatever host a request names."""
    host = field_of(_HOSTS, _host(service) + field_of(_ROUTES, route))
    return Entry.serialised(name, _TABLE, b"".join((field_of(_NAME, name.encode()), host, _ON_ITS_WAY)))


@lru_cache(maxsize=1000)
def _host(service: str) -> bytes:
    return serialised(route_components_pb2.VirtualHost(name=service, domains=["*"]))


_TABLE = type_url_of(route_pb2.RouteConfiguration())
_NAME = route_pb2.RouteConfiguration.NAME_FIELD_NUMBER
_HOSTS = route_pb2.RouteConfiguration.VIRTUAL_HOSTS_FIELD_NUMBER
_ROUTES = route_components_pb2.VirtualHost.ROUTES_FIELD_NUMBER
_ON_ITS_WAY = serialised(route_pb2.RouteConfiguration(validate_clusters=wrappers_pb2.BoolValue(value=False)))
"""Clusters and routes arrive apart: a route to a cluster that is still on its way is no error."""
