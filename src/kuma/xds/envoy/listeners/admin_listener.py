"""The way to an Envoy's administration from another machine: mutual TLS, for control planes only.

Envoy's own interface stays on 127.0.0.1; a listener in front of it lets through what the API shows. A proxy that
listens on that address itself has none: a control plane on its machine asks Envoy directly.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from envoy.config.core.v3 import base_pb2
from envoy.config.listener.v3 import listener_components_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb2
from envoy.extensions.transport_sockets.tls.v3 import common_pb2
from envoy.type.matcher.v3 import string_pb2

from kuma.base.values import addresses
from kuma.resources.models.dataplane import Networking, listen_address
from kuma.resources.models.target_ref import NAMESPACE
from kuma.xds.envoy import resource_names, tls
from kuma.xds.envoy.generated import Generated
from kuma.xds.envoy.listeners import filters, listener
from kuma.xds.envoy.resource import Entry, TypeUrl
from kuma.xds.envoy.services import clusters

ADDRESS = "127.0.0.1"
READABLE = ("/config_dump", "/stats", "/clusters")
"""What is let through to be read."""
QUIT = "/quitquitquit"
"""Ends Envoy: of a Pod whose work is done, on clusters where nobody else ends it."""
CLIENT = "kuma-cp"
"""The name in the certificate of those who are let in."""


def is_remote(networking: Networking) -> bool:
    """Tells whether a proxy's administration is reached through a listener of its own.

    There is none as long as the host name of the proxy has no address.
    """
    return networking.address != ADDRESS and addresses.parse(networking.address) is not None


def entries(networking: Networking, port: int, generated: Generated) -> Iterator[tuple[TypeUrl, Entry]]:
    """Yields the listener and what it leads to; nothing for a proxy that needs none, or has another listener there.

    `port` is where Envoy's own interface is, as its proxy has said when it connected, or 0 if it has not: users may
    change the Dataplane, and must not have Envoy lead to ports of their choice.
    """
    if port and is_remote(networking) and not _is_taken(networking, port):
        yield TypeUrl.CLUSTER, generated.entry(_cluster, port)
        yield TypeUrl.LISTENER, generated.entry(_listener, networking.address, port, _is_of_pod(networking))


def _is_of_pod(networking: Networking) -> bool:
    """Tells whether a proxy is the sidecar of a Pod: on a machine a service manager ends it, and nobody else."""
    return any(NAMESPACE in tags for tags in networking.tag_sets)


def _is_taken(networking: Networking, port: int) -> bool:
    place = networking.address, port
    return any((listen_address(networking, inbound), inbound.port) == place for inbound in networking.inbound) or any(
        (outbound.address, outbound.port) == place for outbound in networking.outbound
    )


def secrets(certificate: bytes, key: bytes, ca: bytes) -> Mapping[str, Entry]:
    """Returns the listener's certificate, and the CA of those whom it lets in."""
    made = tls.certificate(resource_names.ADMIN_IDENTITY, certificate, key), tls.trusted(resource_names.ADMIN_CA, ca)
    return {secret.name: Entry.of(secret.name, secret) for secret in made}


def _cluster(port: int) -> Entry:
    return clusters.local(ADDRESS, port, "http", resource_names.ADMIN)


def _listener(address: str, port: int, ended: bool) -> Entry:
    routes = [_route("GET", path) for path in READABLE]
    if ended:
        routes.append(_route("POST", QUIT))
    host = route_components_pb2.VirtualHost(name=resource_names.ADMIN, domains=["*"], routes=routes)
    manager = hcm_pb2.HttpConnectionManager(
        stat_prefix=resource_names.stat_name(resource_names.ADMIN),
        route_config=route_pb2.RouteConfiguration(name=resource_names.ADMIN, virtual_hosts=[host]),
        http_filters=[filters.ROUTER],
    )
    peer = common_pb2.SubjectAltNameMatcher(
        san_type=common_pb2.SubjectAltNameMatcher.DNS, matcher=string_pb2.StringMatcher(exact=CLIENT)
    )
    chain = listener_components_pb2.FilterChain(
        transport_socket=tls.requiring(tls.verified(resource_names.ADMIN_IDENTITY, resource_names.ADMIN_CA, peer)),
        filters=[filters.network_filter("envoy.filters.network.http_connection_manager", manager)],
    )
    return listener.listener(resource_names.ADMIN, address, port, base_pb2.INBOUND, [chain])


def _route(method: str, path: str) -> route_components_pb2.Route:
    exactly = string_pb2.StringMatcher(exact=method)
    asked = route_components_pb2.HeaderMatcher(name=":method", string_match=exactly)
    return route_components_pb2.Route(
        match=route_components_pb2.RouteMatch(path=path, headers=[asked]),
        route=route_components_pb2.RouteAction(cluster=resource_names.ADMIN),
    )
