"""Makes what a workload calls other services by: a listener for each outbound, and its routes."""

from __future__ import annotations

from typing import NamedTuple

from envoy.config.core.v3 import base_pb2
from envoy.config.listener.v3 import listener_components_pb2
from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.filters.common.set_filter_state.v3 import value_pb2 as set_filter_state_value_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb2
from envoy.extensions.filters.network.set_filter_state.v3 import set_filter_state_pb2
from envoy.extensions.retry.host.previous_hosts.v3 import previous_hosts_pb2
from google.protobuf import wrappers_pb2

from kuma.xds.envoy import resource_names, tls
from kuma.xds.envoy.listeners import filters
from kuma.xds.envoy.listeners import listener as listeners
from kuma.xds.envoy.listeners.access_log import NOTHING, Logged
from kuma.xds.envoy.resource import Entry, serialised
from kuma.xds.envoy.services.clusters import HTTP_PROTOCOLS

_ATTEMPTS = 4
_RETRY_ELSEWHERE = route_components_pb2.RetryPolicy(
    retry_on="connect-failure,refused-stream,reset-before-request",
    num_retries=wrappers_pb2.UInt32Value(value=_ATTEMPTS - 1),
    host_selection_retry_max_attempts=5,
    retry_host_predicate=[
        route_components_pb2.RetryPolicy.RetryHostPredicate(
            name="envoy.retry_host_predicates.previous_hosts",
            typed_config=tls.packed(previous_hosts_pb2.PreviousHostsPredicate()),
        )
    ],
)


class OutboundPlace(NamedTuple):
    """The place where a workload reaches a service, and the cluster of it, by the routes of a name if it is HTTP."""

    address: str
    port: int
    cluster: str
    protocol: str
    called: str = ""
    """The name of routes that it shares with others."""
    bound: bool = True
    """False if the kernel brings what is meant for this place."""

    @property
    def routes(self) -> str:
        """The name of its routes."""
        return self.called or resource_names.outbound_listener(self.address, self.port)


def listener(place: OutboundPlace, offers_group: bool = True, logged: Logged = NOTHING) -> Entry:
    """Makes the listener at which the workload reaches a service; `offers_group` as one of its group of callers."""
    name, cluster = resource_names.outbound_listener(place.address, place.port), place.cluster
    chain = listener_components_pb2.FilterChain(filters=[_GROUP_OFFERED] if offers_group else [])
    if place.protocol in HTTP_PROTOCOLS:
        # What the workload itself claims of its callers is dropped: identity is the server's to establish.
        told = hcm_pb2.HttpConnectionManager.SANITIZE
        chain.filters.append(filters.http(place.routes, cluster, told, logged=logged))
    else:
        chain.filters.append(filters.tcp(cluster, cluster, attempts=_ATTEMPTS, logged=logged))
    return listeners.listener(name, place.address, place.port, base_pb2.OUTBOUND, [chain], bound=place.bound)


def routes(name: str, service: str, cluster: str) -> Entry:
    """Makes the routes of an HTTP outbound. A request that has reached nobody, and so did nothing, goes elsewhere."""
    action = route_components_pb2.RouteAction(cluster=cluster, retry_policy=_RETRY_ELSEWHERE)
    action.timeout.SetInParent()
    route = route_components_pb2.Route(match=listeners.EVERY_REQUEST, route=action)
    return listeners.routes(name, service, serialised(route))


def _group_offered() -> listener_components_pb2.Filter:
    """Has TLS to other proxies offer the ALPN of this proxy's group of callers, by what its bootstrap says of it.

    So what is equal for all proxies that call a service stays equal. A proxy that does not know offers the mesh's only.
    """
    value = set_filter_state_value_pb2.FilterStateValue(
        object_key="envoy.network.application_protocols",
        shared_with_upstream=set_filter_state_value_pb2.FilterStateValue.ONCE,
    )
    offered = f"%CEL(xds.node.metadata['{tls.GROUP_ALPN}'])%,{tls.ALPN}"
    value.format_string.text_format_source.inline_string = offered
    config = set_filter_state_pb2.Config(on_new_connection=[value])
    return filters.network_filter("envoy.filters.network.set_filter_state", config)


_GROUP_OFFERED = _group_offered()
