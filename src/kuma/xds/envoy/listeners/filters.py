"""Makes the filters that connections pass through: an HTTP connection manager, or a TCP proxy."""

from __future__ import annotations

from datetime import timedelta

from envoy.config.listener.v3 import listener_components_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from google.protobuf import message

from kuma.xds.envoy import resource_names, tls
from kuma.xds.envoy.listeners import access_log, caller_headers, reports
from kuma.xds.envoy.listeners.access_log import NOTHING, Logged
from kuma.xds.envoy.listeners.connection_limits import NONE, Limits
from kuma.xds.envoy.listeners.reports import Reported
from kuma.xds.envoy.resource import any_of, field_of, serialised

ROUTER = hcm_pb2.HttpFilter(name="envoy.filters.http.router", typed_config=tls.packed(router_pb2.Router()))
"""The last link of every HTTP filter chain."""


def network_filter(name: str, config: message.Message) -> listener_components_pb2.Filter:
    """Makes one link of a filter chain."""
    return listener_components_pb2.Filter(name=name, typed_config=tls.packed(config))


def network_filter_of(name: str, type_url: str, config: bytes) -> bytes:
    """Makes the same of what is serialised, as it travels."""
    return serialised(listener_components_pb2.Filter(name=name)) + field_of(_CONFIG, any_of(type_url, config))


_CONFIG = listener_components_pb2.Filter.TYPED_CONFIG_FIELD_NUMBER


def http(
    routes: str,
    counted_as: str,
    client_certificate: hcm_pb2.HttpConnectionManager.ForwardClientCertDetails,
    *filters: hcm_pb2.HttpFilter,
    statistics: str = "",
    limits: Limits = NONE,
    reported: Reported = Reported.NOTHING,
    logged: Logged = NOTHING,
    by_pattern: bool = False,
) -> listener_components_pb2.Filter:
    """Makes the filter that serves HTTP by the routes of this name, each request passing `filters` first.

    `reported` is how much the control plane is told of its requests. A connection for which it is time is ended by an
    answer that says so, over HTTP/1.1 too, where Envoy could otherwise close it while a request is on its way.
    Headers by which somebody says who called are dropped, `by_pattern` in whatever spelling.
    """
    manager = hcm_pb2.HttpConnectionManager(
        stat_prefix=resource_names.stat_name(counted_as) + statistics,
        forward_client_cert_details=client_certificate,
        rds=hcm_pb2.Rds(route_config_name=routes, config_source=tls.ADS),
        upgrade_configs=[hcm_pb2.HttpConnectionManager.UpgradeConfig(upgrade_type="websocket")],
        early_header_mutation_extensions=[caller_headers.dropped(by_pattern=by_pattern)],
        access_log=access_log.loggers(logged, http=True),
    )
    # Whatever addresses a caller says, Envoy takes nobody for a caller from inside, whom it obeys and marks as such.
    manager.internal_address_config.SetInParent()
    manager.http2_protocol_options.allow_connect = True
    # Old clients, and proxies such as nginx in front of a service, ask by HTTP/1.0, which needs no host.
    manager.http_protocol_options.accept_http_10 = True
    manager.http_protocol_options.default_host_for_http_10 = "localhost"
    if limits.http_connection is not None:
        manager.common_http_protocol_options.max_connection_duration.FromTimedelta(limits.http_connection)
        manager.http1_safe_max_connection_duration = client_certificate == hcm_pb2.HttpConnectionManager.SANITIZE
    if limits.http_stream is not None:
        manager.common_http_protocol_options.max_stream_duration.FromTimedelta(limits.http_stream)
    if client_certificate == hcm_pb2.HttpConnectionManager.SANITIZE_SET:
        manager.set_current_client_cert_details.uri = True
    reports.of_http(manager, reported)
    manager.http_filters.extend([*filters, ROUTER])
    return network_filter("envoy.filters.network.http_connection_manager", manager)


def tcp(
    counted_as: str,
    cluster: str,
    statistics: str = "",
    attempts: int = 1,
    *,
    after_handshake: bool = False,
    longest: timedelta | None = None,
    reported: Reported = Reported.NOTHING,
    logged: Logged = NOTHING,
) -> listener_components_pb2.Filter:
    """Makes the filter that passes bytes on to a cluster, for at most the `longest` time a connection may go on.

    `reported` is how much the control plane is told of connections while they last.
    """
    proxy = tcp_proxy_pb2.TcpProxy(stat_prefix=resource_names.stat_name(counted_as) + statistics, cluster=cluster)
    proxy.max_connect_attempts.value = attempts
    proxy.access_log.extend(access_log.loggers(logged, http=False))
    if after_handshake:
        proxy.upstream_connect_mode = tcp_proxy_pb2.ON_DOWNSTREAM_TLS_HANDSHAKE
        proxy.max_early_data_bytes.value = 0
    if longest is not None:
        proxy.max_downstream_connection_duration.FromTimedelta(longest)
    reports.of_tcp(proxy, reported)
    return network_filter("envoy.filters.network.tcp_proxy", proxy)
