"""Clusters and their endpoints: the workload behind an inbound, and the services that outbounds call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import address_pb2, base_pb2, health_check_pb2, protocol_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2
from envoy.extensions.transport_sockets.internal_upstream.v3 import internal_upstream_pb2
from envoy.extensions.transport_sockets.raw_buffer.v3 import raw_buffer_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2

from kuma.resources import tags as tag_rules
from kuma.xds.envoy import resource_names, tls
from kuma.xds.envoy.resource import Entry

CONNECT_TIMEOUT = timedelta(seconds=5)
HTTP_PROTOCOLS = frozenset({"http", "http2", "grpc"})
HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

Endpoint = tuple[str, int]
"""Where a proxy of a service can be reached: address and port."""


def socket(address: str, port: int) -> address_pb2.Address:
    """Returns a TCP address."""
    return address_pb2.Address(socket_address=address_pb2.SocketAddress(address=address, port_value=port))


def local(address: str, port: int, protocol: str, name: str = "", source: str = "") -> Entry:
    """Makes the cluster of the workload of an inbound: in the clear, because it is on the proxy's own machine.

    `source` is the address that it is called from, if it matters.
    """
    cluster = _cluster(name or resource_names.local_cluster(address, port), cluster_pb2.Cluster.STATIC)
    cluster.load_assignment.CopyFrom(assignment(cluster.name, [(address, port)]))
    if protocol in HTTP_PROTOCOLS:
        _speak(cluster, http2=protocol != "http")
    _call_from(cluster, source)
    return Entry.of(cluster.name, cluster)


def _call_from(cluster: cluster_pb2.Cluster, source: str) -> None:
    if source:
        cluster.upstream_bind_config.source_address.CopyFrom(socket(source, 0).socket_address)


def passthrough(name: str, source: str = "") -> Entry:
    """Makes a cluster that leads to wherever a connection was meant for, in plaintext; called from `source`, if any."""
    cluster = _of_original_destination(name)
    _call_from(cluster, source)
    return Entry.of(name, cluster)


def direct(mesh: str, service: str, protocol: str, mtls: bool) -> Entry:
    """Makes the cluster of a service whose proxies are called by their addresses: the one that a caller has named.

    Whoever answers there has to be the service.
    """
    cluster = _of_original_destination(resource_names.direct(service))
    if protocol in HTTP_PROTOCOLS:
        _speak(cluster, http2=True)
    if mtls:
        cluster.transport_socket.CopyFrom(tls.upstream(mesh, {tag_rules.SERVICE: service}))
    return Entry.of(cluster.name, cluster)


def _of_original_destination(name: str) -> cluster_pb2.Cluster:
    cluster = _cluster(name, cluster_pb2.Cluster.ORIGINAL_DST)
    cluster.lb_policy = cluster_pb2.Cluster.CLUSTER_PROVIDED
    return cluster


def internal(name: str) -> Entry:
    """Makes the cluster of an internal listener of the same Envoy. What callers' certificates say goes along."""
    cluster = _cluster(name, cluster_pb2.Cluster.STATIC)
    cluster.load_assignment.cluster_name = name
    endpoint = cluster.load_assignment.endpoints.add().lb_endpoints.add().endpoint
    endpoint.address.envoy_internal_address.server_listener_name = name
    inner = base_pb2.TransportSocket(
        name="envoy.transport_sockets.raw_buffer", typed_config=tls.packed(raw_buffer_pb2.RawBuffer())
    )
    transport = internal_upstream_pb2.InternalUpstreamTransport(transport_socket=inner)
    cluster.transport_socket.name = "envoy.transport_sockets.internal_upstream"
    cluster.transport_socket.typed_config.CopyFrom(tls.packed(transport))
    return Entry.of(name, cluster)


def service(mesh: str, tags: Mapping[str, str], protocol: str, *, mtls: bool) -> Entry:
    """Makes the cluster of a service, or of a part of it, as its callers see it: the same for all of the mesh."""
    cluster = _cluster(resource_names.service_cluster(tags), cluster_pb2.Cluster.EDS)
    cluster.eds_cluster_config.eds_config.CopyFrom(tls.ADS)
    # An endpoint that has left must not be called because it still answers health checks of nobody.
    cluster.ignore_health_on_host_removal = True
    if protocol in HTTP_PROTOCOLS:
        _speak(cluster, http2=True)  # between two of our Envoys, whatever the workloads speak
    if mtls:
        cluster.transport_socket.CopyFrom(tls.upstream(mesh, tags))
    return Entry.of(cluster.name, cluster)


def endpoints(tags: Mapping[str, str], found: Iterable[Endpoint]) -> Entry:
    """Returns the endpoints of a service, in one order so that equal sets look equal."""
    name = resource_names.service_cluster(tags)
    return Entry.of(name, assignment(name, sorted(set(found))))


def common_protocol(protocols: Iterable[str]) -> str:
    """Finds the most telling protocol that all proxies of a service speak; `tcp` without agreement, or proxies."""
    stacks = [_STACKS.get(protocol, ("tcp",)) for protocol in set(protocols)]
    if not stacks:
        return "tcp"
    return next((p for p in stacks[0] if all(p in stack for stack in stacks)), "tcp")


_STACKS = {
    "grpc": ("grpc", "http2", "tcp"),
    "http2": ("http2", "tcp"),
    "http": ("http", "tcp"),
    "kafka": ("kafka", "tcp"),
}


def _cluster(name: str, discovery: cluster_pb2.Cluster.DiscoveryType) -> cluster_pb2.Cluster:
    cluster = cluster_pb2.Cluster(name=name, alt_stat_name=resource_names.stat_name(name), type=discovery)
    cluster.connect_timeout.FromTimedelta(CONNECT_TIMEOUT)
    return cluster


def assignment(name: str, found: Iterable[Endpoint]) -> endpoint_pb2.ClusterLoadAssignment:
    """Returns the endpoints of a cluster, in the order given."""
    assignment = endpoint_pb2.ClusterLoadAssignment(cluster_name=name)
    hosts = [
        endpoint_components_pb2.LbEndpoint(
            endpoint=endpoint_components_pb2.Endpoint(address=socket(*endpoint)),
            health_status=health_check_pb2.HEALTHY,
        )
        for endpoint in found
    ]
    if hosts:
        assignment.endpoints.add(lb_endpoints=hosts)
    return assignment


def _speak(cluster: cluster_pb2.Cluster, *, http2: bool) -> None:
    options = http_protocol_options_pb2.HttpProtocolOptions()
    if http2:
        # Extended CONNECT carries WebSockets over HTTP/2 (RFC 8441).
        http2_options = protocol_pb2.Http2ProtocolOptions(allow_connect=True)
        options.explicit_http_config.http2_protocol_options.CopyFrom(http2_options)
    else:
        options.explicit_http_config.http_protocol_options.SetInParent()
    cluster.typed_extension_protocol_options[HTTP_OPTIONS].CopyFrom(tls.packed(options))


def selects(tags: Mapping[str, str], inbound_tags: Mapping[str, str]) -> bool:
    """Tells whether an inbound belongs to what an outbound with `tags` calls."""
    return all(inbound_tags.get(name) == value for name, value in tags.items() if name != tag_rules.PROTOCOL)
