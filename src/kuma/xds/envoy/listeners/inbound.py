"""Listeners and routes: what a proxy accepts from callers, and what it offers to its workload.

HTTP access rules stand in the routes, not in the listener: a changed permission then takes effect on the next request
of every connection, old ones too, and drains nothing. The listener's own rule denies everything, so that a route
without a rule of its own lets nobody in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta

from envoy.config.core.v3 import base_pb2
from envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from envoy.config.rbac.v3 import rbac_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.extensions.filters.common.set_filter_state.v3 import value_pb2 as set_filter_state_value_pb2
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2 as http_rbac_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.listener.tls_inspector.v3 import tls_inspector_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb2
from envoy.extensions.filters.network.rbac.v3 import rbac_pb2 as network_rbac_pb2
from envoy.extensions.filters.network.set_filter_state.v3 import set_filter_state_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from envoy.extensions.retry.host.previous_hosts.v3 import previous_hosts_pb2
from google.protobuf import message, wrappers_pb2

from kuma.policy.authorization import NOBODY, Admission
from kuma.xds.envoy import caller_headers, clusters, gate, rbac, resource_names, tls
from kuma.xds.envoy.capabilities import OLDEST, Capabilities
from kuma.xds.envoy.clusters import HTTP_PROTOCOLS, socket
from kuma.xds.envoy.connection_limits import NONE, Limits
from kuma.xds.envoy.resource import Entry

_INSPECTION = timedelta(seconds=1)
_HTTP_RBAC = "envoy.filters.http.rbac"
_NOBODY = rbac_pb2.RBAC(action=rbac_pb2.RBAC.ALLOW)
ROUTER = hcm_pb2.HttpFilter(name="envoy.filters.http.router", typed_config=tls.packed(router_pb2.Router()))
"""The last link of every HTTP filter chain."""


def inbound(
    mesh: str,
    address: str,
    port: int,
    cluster: str,
    protocol: str,
    admission: Admission | None,
    strict: bool,
    sealed: bool = False,
    label: str = "",
    envoy: Capabilities = OLDEST,
    limits: Limits = NONE,
    groups: Sequence[tuple[str, Admission]] = (),
) -> Entry:
    """The listener of one inbound.

    Without `admission` it is plaintext. With it, and `strict`, it is mutual TLS and admits only these. With it and not
    strict it tells three kinds of callers apart: mesh TLS (by the ALPN that our callers offer), which the same rules
    admit; a workload's own TLS, which is passed on as it is; and plaintext. Each has its own statistics, called after
    the listener: two inbounds may lead to one port of a workload. `sealed` refuses the latter two kinds: nobody is
    admitted, and callers of the mesh do not encrypt yet.

    Envoy drains the connections of a filter chain that is replaced: `label` stands for what callers could show when
    they connected. `groups` of callers, with what is said about each, have chains of their own, so that no more is
    drained than has to be; callers offer the ALPN of their group, and nobody gains by offering another one's.
    `limits` is how long a connection may go on, `envoy` what the proxy's Envoy can do.
    """
    name = resource_names.inbound_listener(address, port)
    if admission is None:
        return listener(name, address, port, base_pb2.INBOUND, [_plaintext(name, cluster, protocol, "")])

    def mutual(alpn: str, admission: Admission) -> listener_components_pb2.FilterChain:
        chain = _mutual(mesh, address, port, cluster, protocol, admission, envoy, limits)
        metadata = [label, _digest(admission) if protocol in HTTP_PROTOCOLS else ""]
        if any(metadata):
            chain.metadata.filter_metadata["io.kuma"].update({"callers": " ".join(metadata)})
        if not strict:
            chain.filter_chain_match.transport_protocol = "tls"
        if alpn:
            chain.filter_chain_match.application_protocols.append(alpn)
        return chain

    chains = [mutual("" if strict else tls.ALPN, admission)]
    for group, part in groups:
        chain = mutual(tls.group_alpn(group), part)
        chain.name = f"{chain.name}_{group}"
        chains.append(chain)
    if not strict:
        chains += _others(name, cluster, protocol, sealed)
    return listener(name, address, port, base_pb2.INBOUND, chains, inspects=True)


def _digest(admission: Admission) -> str:
    """Stands for who is admitted, where the routes say it and the listener only has to follow."""
    return hashlib.sha256(repr((admission.principals, admission.denied)).encode()).hexdigest()[:16]


def _others(name: str, cluster: str, protocol: str, sealed: bool) -> list[listener_components_pb2.FilterChain]:
    """The chains of callers that do not speak the mesh's TLS."""
    foreign = _chain("foreign_tls", _tcp(name, resource_names.NOWHERE if sealed else cluster, "_foreign_tls"))
    foreign.filter_chain_match.transport_protocol = "tls"
    plaintext = _plaintext(name, cluster, protocol, "_plaintext")
    if sealed:
        plaintext = _chain("plaintext", _tcp(name, resource_names.NOWHERE, "_plaintext"))
    plaintext.filter_chain_match.transport_protocol = "raw_buffer"
    return [foreign, plaintext]


def gate_cluster(address: str, port: int) -> Entry:
    """Makes the way to the gate of an inbound."""
    return clusters.internal(resource_names.gate(address, port))


def gate_listener(mesh: str, address: str, port: int, cluster: str, admissions: tuple[Admission, ...]) -> Entry:
    """Makes the gate of an inbound that is not HTTP; see `gate.listener`."""
    name = resource_names.gate(address, port)
    return gate.listener(name, mesh, admissions, _tcp(name, cluster))


def _chain(name: str, *filters: listener_components_pb2.Filter) -> listener_components_pb2.FilterChain:
    return listener_components_pb2.FilterChain(name=name, filters=filters)


def _plaintext(name: str, cluster: str, protocol: str, statistics: str) -> listener_components_pb2.FilterChain:
    if protocol in HTTP_PROTOCOLS:
        return _chain("plaintext", _http(name, name, hcm_pb2.HttpConnectionManager.SANITIZE, statistics=statistics))
    return _chain("plaintext", _tcp(name, cluster, statistics))


def _mutual(
    mesh: str,
    address: str,
    port: int,
    cluster: str,
    protocol: str,
    admission: Admission,
    envoy: Capabilities,
    limits: Limits,
) -> listener_components_pb2.FilterChain:
    name = resource_names.inbound_listener(address, port)
    http = protocol in HTTP_PROTOCOLS
    # Where it can be decided later, the handshake refuses nobody of the mesh: callers' proxies would try again.
    names = rbac.names(mesh, NOBODY if http or envoy.has_gates else admission)
    filters = (
        [_inbound_http(name, limits)] if http else _access(mesh, address, port, cluster, admission, envoy, limits.tcp)
    )
    chain = _chain("mesh_tls", *filters)
    chain.transport_socket.CopyFrom(tls.downstream(mesh, names))
    return chain


def _access(
    mesh: str,
    address: str,
    port: int,
    cluster: str,
    admission: Admission,
    envoy: Capabilities,
    longest: timedelta | None,
) -> Iterator[listener_components_pb2.Filter]:
    """Returns the filters that admit callers of TCP.

    RBAC decides at a caller's first byte, and counts. The workload is reached before that where it speaks first: so the
    gate decides earlier. An Envoy that has none asks certificates for the names that are admitted, as far as that goes.
    """
    name = resource_names.inbound_listener(address, port)
    if not admission.principals:
        cluster = resource_names.NOWHERE
    elif envoy.has_gates:
        yield gate.peer_names(admission)
        cluster = resource_names.gate(address, port)
    access = network_rbac_pb2.RBAC(
        rules=rbac.access(mesh, admission),
        shadow_rules=rbac.shadow_access(mesh, admission),
        stat_prefix=f"{resource_names.stat_name(name)}.",
    )
    yield network_filter("envoy.filters.network.rbac", access)
    yield _tcp(name, cluster, after_handshake=envoy.waits_for_handshake, longest=longest)


def inbound_routes(
    mesh: str, address: str, port: int, service: str, cluster: str, admission: Admission | None
) -> Entry:
    """The routes of an HTTP inbound, and who may take them."""
    route = route_components_pb2.Route(match=_EVERYTHING, route=route_components_pb2.RouteAction(cluster=cluster))
    route.route.timeout.SetInParent()  # none here: the caller's side decides how long a request may take
    # Without mutual TLS the rule says "unchecked" rather than nothing: the listener that still denies everybody may go
    # a moment later than its routes.
    rule = http_rbac_pb2.RBACPerRoute()
    if admission is not None:
        shadow = rbac.shadow_access(mesh, admission)
        rule.rbac.CopyFrom(http_rbac_pb2.RBAC(rules=rbac.access(mesh, admission), shadow_rules=shadow))
    route.typed_per_filter_config[_HTTP_RBAC].CopyFrom(tls.packed(rule))
    return _routes(resource_names.inbound_listener(address, port), service, route)


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
    return network_filter("envoy.filters.network.set_filter_state", config)


def outbound(address: str, port: int, tags: Mapping[str, str], protocol: str, *, offers_group: bool = True) -> Entry:
    """The listener at which the workload reaches a service; `offers_group` as one of its group of callers."""
    name, cluster = resource_names.outbound_listener(address, port), resource_names.service_cluster(tags)
    chain = listener_components_pb2.FilterChain(filters=[_GROUP_OFFERED] if offers_group else [])
    if protocol in HTTP_PROTOCOLS:
        # What the workload itself claims of its callers is dropped: identity is the server's to establish.
        chain.filters.append(_http(name, cluster, hcm_pb2.HttpConnectionManager.SANITIZE))
    else:
        chain.filters.append(_tcp(cluster, cluster, attempts=_ATTEMPTS))
    return listener(name, address, port, base_pb2.OUTBOUND, [chain])


def outbound_routes(address: str, port: int, service: str, tags: Mapping[str, str]) -> Entry:
    """The routes of an HTTP outbound. A request that has reached nobody is sent to another endpoint: it did nothing."""
    action = route_components_pb2.RouteAction(
        cluster=resource_names.service_cluster(tags), retry_policy=_RETRY_ELSEWHERE
    )
    action.timeout.SetInParent()
    route = route_components_pb2.Route(match=_EVERYTHING, route=action)
    return _routes(resource_names.outbound_listener(address, port), service, route)


_EVERYTHING = route_components_pb2.RouteMatch(prefix="/")
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


def _inbound_http(name: str, limits: Limits) -> listener_components_pb2.Filter:
    """An HTTP connection manager that tells the workload who calls, in `x-forwarded-client-cert`.

    Values that the caller sent are replaced (SANITIZE_SET), so the header can be trusted.
    """
    deny_all = http_rbac_pb2.RBAC(rules=_NOBODY)
    access = hcm_pb2.HttpFilter(name=_HTTP_RBAC, typed_config=tls.packed(deny_all))
    return _http(name, name, hcm_pb2.HttpConnectionManager.SANITIZE_SET, access, limits=limits)


def _http(
    routes: str,
    counted_as: str,
    client_certificate: hcm_pb2.HttpConnectionManager.ForwardClientCertDetails,
    *filters: hcm_pb2.HttpFilter,
    statistics: str = "",
    limits: Limits = NONE,
) -> listener_components_pb2.Filter:
    manager = hcm_pb2.HttpConnectionManager(
        stat_prefix=resource_names.stat_name(counted_as) + statistics,
        forward_client_cert_details=client_certificate,
        rds=hcm_pb2.Rds(route_config_name=routes, config_source=tls.ADS),
        upgrade_configs=[hcm_pb2.HttpConnectionManager.UpgradeConfig(upgrade_type="websocket")],
        early_header_mutation_extensions=[caller_headers.dropped()],
    )
    # Whatever addresses a caller says, Envoy takes nobody for a caller from inside, whom it obeys and marks as such.
    manager.internal_address_config.SetInParent()
    manager.http2_protocol_options.allow_connect = True
    if limits.http_connection is not None:
        manager.common_http_protocol_options.max_connection_duration.FromTimedelta(limits.http_connection)
    if limits.http_stream is not None:
        manager.common_http_protocol_options.max_stream_duration.FromTimedelta(limits.http_stream)
    if client_certificate == hcm_pb2.HttpConnectionManager.SANITIZE_SET:
        manager.set_current_client_cert_details.uri = True
    manager.http_filters.extend([*filters, ROUTER])
    return network_filter("envoy.filters.network.http_connection_manager", manager)


def _tcp(
    counted_as: str,
    cluster: str,
    statistics: str = "",
    attempts: int = 1,
    *,
    after_handshake: bool = False,
    longest: timedelta | None = None,
) -> listener_components_pb2.Filter:
    proxy = tcp_proxy_pb2.TcpProxy(stat_prefix=resource_names.stat_name(counted_as) + statistics, cluster=cluster)
    proxy.max_connect_attempts.value = attempts
    if after_handshake:
        proxy.upstream_connect_mode = tcp_proxy_pb2.ON_DOWNSTREAM_TLS_HANDSHAKE
        proxy.max_early_data_bytes.value = 0
    if longest is not None:
        proxy.max_downstream_connection_duration.FromTimedelta(longest)
    return network_filter("envoy.filters.network.tcp_proxy", proxy)


def network_filter(name: str, config: message.Message) -> listener_components_pb2.Filter:
    """One link of a filter chain."""
    return listener_components_pb2.Filter(name=name, typed_config=tls.packed(config))


def listener(
    name: str,
    address: str,
    port: int,
    direction: base_pb2.TrafficDirection,
    chains: Sequence[listener_components_pb2.FilterChain],
    *,
    inspects: bool = False,
) -> Entry:
    """A listener. One that `inspects` looks at what a caller begins with to tell which chain is meant."""
    made = listener_pb2.Listener(
        name=name,
        address=socket(address, port),
        stat_prefix=resource_names.stat_name(name),
        traffic_direction=direction,
        filter_chains=chains,
    )
    made.enable_reuse_port.value = False
    if inspects:
        inspector = tls.packed(tls_inspector_pb2.TlsInspector())
        made.listener_filters.add(name="envoy.filters.listener.tls_inspector", typed_config=inspector)
        # Where the server speaks first, a plaintext caller sends nothing to inspect: it is not kept waiting for long.
        made.listener_filters_timeout.FromTimedelta(_INSPECTION)
        made.continue_on_listener_filters_timeout = True
    return Entry.of(name, made)


_GROUP_OFFERED = _group_offered()


def _routes(name: str, service: str, route: route_components_pb2.Route) -> Entry:
    host = route_components_pb2.VirtualHost(name=service, domains=["*"], routes=[route])
    table = route_pb2.RouteConfiguration(name=name, virtual_hosts=[host])
    # Clusters and routes arrive apart: a route to a cluster that is still on its way is no error.
    table.validate_clusters.value = False
    return Entry.of(name, table)
