"""Makes what Prometheus reads a proxy's metrics at: one path, which leads to that of Envoy's own administration."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from urllib.parse import urlencode

from envoy.config.core.v3 import address_pb2
from envoy.config.listener.v3 import listener_components_pb2
from envoy.config.route.v3 import route_components_pb2
from envoy.type.matcher.v3 import string_pb2

from kuma.policy.authorization import Admission
from kuma.resources.models.blocks.metrics import Scraping
from kuma.xds.envoy import resource_names
from kuma.xds.envoy.listeners import inbound
from kuma.xds.envoy.listeners import listener as listeners
from kuma.xds.envoy.listeners.connection_limits import Limits
from kuma.xds.envoy.listeners.inbound import InboundAccess, InboundPlace
from kuma.xds.envoy.resource import Entry, serialised
from kuma.xds.envoy.services import clusters

_ADMINISTRATION = "127.0.0.1"
_STATS = "/stats/prometheus"


def place(mesh: str, address: str, scraping: Scraping) -> InboundPlace:
    """Returns where metrics are served."""
    cluster = resource_names.METRICS_CLUSTER
    return InboundPlace(mesh, address, scraping.port, cluster, "http", resource_names.METRICS)


def cluster(admin_port: int) -> Entry:
    """Makes the way to Envoy's administration."""
    return clusters.local(_ADMINISTRATION, admin_port, "http", resource_names.METRICS_CLUSTER)


def listener(where: InboundPlace, access: InboundAccess | None, limits: Limits) -> Entry:
    """Makes the listener: with `access` for callers of the mesh that it admits, and for the proxy's own machine."""
    if access is None:
        return inbound.listener(inbound.frame(where, inspects=False), None)
    framed = inbound.frame(where, limits=limits)
    chains = [*inbound.chains(framed, access), *((serialised(chain),) for chain in _own_machine(where))]
    return listeners.joined(where.name, framed.head, chains)


def _own_machine(where: InboundPlace) -> Iterator[listener_components_pb2.FilterChain]:
    """Makes the chain of callers at the proxy's own address: they reach Envoy's administration as it is."""
    chain = inbound.plaintext(where, "_plaintext")
    chain.filter_chain_match.transport_protocol = "raw_buffer"
    address = ipaddress.ip_address(where.address)
    own = address_pb2.CidrRange(address_prefix=where.address)
    own.prefix_len.value = address.max_prefixlen
    chain.filter_chain_match.source_prefix_ranges.append(own)
    yield chain


def routes(where: InboundPlace, path: str, query: tuple[tuple[str, str], ...], admission: Admission | None) -> Entry:
    """Makes the one route, and says who may take it."""
    get = string_pb2.StringMatcher(exact="GET")
    method = route_components_pb2.HeaderMatcher(name=":method", string_match=get)
    match = route_components_pb2.RouteMatch(path=path, headers=[method])
    target = f"{_STATS}?{urlencode(query)}" if query else _STATS
    return inbound.ruled(
        where.name, where.mesh, resource_names.METRICS, inbound.route(where.cluster, match, target), admission
    )
