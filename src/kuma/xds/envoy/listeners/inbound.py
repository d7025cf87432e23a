"""Makes what callers reach a workload by: the listener of each inbound, its routes, and the gate before TCP workloads.

HTTP access rules stand in the routes, not in the listener: a changed permission then takes effect on the next request
of every connection, old ones too, and drains nothing. The listener's own rule denies everything, so that a route
without a rule of its own lets nobody in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property, lru_cache
from typing import NamedTuple

from envoy.config.core.v3 import base_pb2
from envoy.config.listener.v3 import listener_components_pb2
from envoy.config.rbac.v3 import rbac_pb2
from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2 as http_rbac_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb2
from envoy.extensions.filters.network.rbac.v3 import rbac_pb2 as network_rbac_pb2

from kuma.policy.authorization import NOBODY, Admission
from kuma.policy.caller_groups import Sharing
from kuma.xds.envoy import resource_names, tls
from kuma.xds.envoy.listeners import caller_headers, filters, gate, rbac
from kuma.xds.envoy.listeners import listener as listeners
from kuma.xds.envoy.listeners.access_log import NOTHING, Logged
from kuma.xds.envoy.listeners.connection_limits import NONE, Limits
from kuma.xds.envoy.listeners.reports import Reported
from kuma.xds.envoy.node.capabilities import OLDEST, Capabilities
from kuma.xds.envoy.resource import Entry, field_of, serialised, type_url_of
from kuma.xds.envoy.services import clusters
from kuma.xds.envoy.services.clusters import HTTP_PROTOCOLS

_HTTP_RBAC = "envoy.filters.http.rbac"
_NOBODY = rbac_pb2.RBAC(action=rbac_pb2.RBAC.ALLOW)


def _per_route(rule: http_rbac_pb2.RBACPerRoute) -> bytes:
    return serialised(route_components_pb2.Route(typed_per_filter_config={_HTTP_RBAC: tls.packed(rule)}))


_UNCHECKED = _per_route(http_rbac_pb2.RBACPerRoute())
_DENY_ALL = hcm_pb2.HttpFilter(name=_HTTP_RBAC, typed_config=tls.packed(http_rbac_pb2.RBAC(rules=_NOBODY)))


class InboundPlace(NamedTuple):
    """The place where callers reach an inbound, and the cluster of the workload that it leads to."""

    mesh: str
    address: str
    port: int
    cluster: str
    protocol: str
    called: str = ""
    """A name of its own, for what is no inbound of the Dataplane."""
    logged: Logged = NOTHING
    bound: bool = True
    """False if the kernel brings what is meant for this place."""

    @property
    def name(self) -> str:
        """The name of its listener and of its routes."""
        return self.called or resource_names.inbound_listener(self.address, self.port)

    @property
    def gate(self) -> str:
        """The name of its gate."""
        return resource_names.gate(self.address, self.port)

    @property
    def is_http(self) -> bool:
        """Tells whether requests are told apart, rather than connections."""
        return self.protocol in HTTP_PROTOCOLS


@dataclass(frozen=True)
class InboundAccess:
    """Whom an inbound admits, and how it tells callers apart.

    `strict` is mutual TLS for everybody. Otherwise three kinds of callers are told apart: mesh TLS (by the ALPN that
    our callers offer), which the same rules admit; a workload's own TLS, which is passed on as it is; and plaintext.
    `sealed` refuses the latter two kinds: nobody is admitted, and callers of the mesh do not encrypt yet.
    """

    admission: Admission
    strict: bool
    sealed: bool = False
    label: str = ""
    """Stands for what callers could show when they connected: Envoy drains the connections of a chain that changes."""
    groups: tuple[tuple[Sharing, Admission], ...] = ()
    """Groups of callers, with what is said about each. They have chains of their own, so that no more is drained than
    has to be; callers offer the ALPN of their group, and nobody gains by offering another one's."""
    group_labels: tuple[str, ...] = ()
    """The label of each group where callers are judged once; the others' connections go on when it changes."""

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        """Computed once, as that of an admission."""
        return hash((self.admission, self.strict, self.sealed, self.label, self.groups, self.group_labels))


@dataclass(frozen=True, eq=False, slots=True, weakref_slot=True)
class Frame:
    """What the listener of an inbound has whoever is admitted: made once, as it travels, and kept for every change."""

    name: str
    """The name of its listener and of its routes."""
    place: InboundPlace
    envoy: Capabilities
    limits: Limits
    head: bytes
    """All but its filter chains."""
    served: bytes
    """The filters over HTTP, the same for all callers with mesh TLS: the routes decide. Over TCP the last one."""
    refused: bytes
    """The last one over TCP where nobody is admitted."""
    gate: bytes
    """What the gate has whoever is admitted, if there is one."""
    route: bytes
    """What requests are led by over HTTP, whoever may make them."""


def frame(place: InboundPlace, envoy: Capabilities = OLDEST, limits: Limits = NONE, *, inspects: bool = True) -> Frame:
    """Makes what does not depend on who is admitted; one without mutual TLS `inspects` nothing.

    Each kind of caller has its own statistics, called after the listener: two inbounds may lead to one port of a
    workload. `limits` is how long a connection may go on, `envoy` what the proxy's Envoy can do.
    """
    head = listeners.head(
        place.name,
        place.address,
        place.port,
        base_pb2.INBOUND,
        inspects=inspects,
        reported=envoy.reports,
        bound=place.bound,
    )
    served, refused, behind = b"", b"", b""
    if inspects and place.is_http:
        served = serialised(_chain("", _http(place, limits, envoy)))
    elif inspects:
        cluster = place.gate if envoy.has_gates else place.cluster
        served = serialised(_chain("", _tcp(place, cluster, place.logged, envoy, limits.tcp)))
        unanswered = place.logged._replace(workload="")
        refused = serialised(_chain("", _tcp(place, resource_names.NOWHERE, unanswered, envoy, limits.tcp)))
        behind = gate.front(place.gate, filters.tcp(place.gate, place.cluster)) if envoy.has_gates else b""
    led = route(place.cluster) if place.is_http else b""
    return Frame(place.name, place, envoy, limits, serialised(head), served, refused, behind, led)


def frame_without_tls(place: InboundPlace, envoy: Capabilities, limits: Limits) -> Frame:
    """Makes the same for an inbound without mutual TLS."""
    return frame(place, envoy, limits, inspects=False)


def listener(framed: Frame, access: InboundAccess | None) -> Entry:
    """Makes the listener of an inbound; plaintext without `access`."""
    if access is None:
        clear = serialised(plaintext(framed.place, "", framed.envoy, framed.limits))
        return listeners.joined(framed.name, framed.head, ((clear,),))
    return listeners.joined(framed.name, framed.head, chains(framed, access))


def routes(framed: Frame, service: str, admission: Admission | None) -> Entry:
    """Makes the routes of an HTTP inbound, and says who may take them."""
    return ruled(framed.name, framed.place.mesh, service, framed.route, admission)


def route(cluster: str, match: route_components_pb2.RouteMatch = listeners.EVERY_REQUEST, path: str = "") -> bytes:
    """Makes what leads to a cluster, but for who may take it; `path` is what it leads to if it is another."""
    action = route_components_pb2.RouteAction(cluster=cluster, prefix_rewrite=path)
    action.timeout.SetInParent()  # none here: the caller's side decides how long a request may take
    return serialised(route_components_pb2.Route(match=match, route=action))


def ruled(name: str, mesh: str, service: str, led: bytes, admission: Admission | None) -> Entry:
    """Makes the routes of a listener of what leads to its cluster, and says who may take them."""
    # Without mutual TLS the rule says "unchecked" rather than nothing: the listener that still denies everybody may go
    # a moment later than its routes.
    rule = _UNCHECKED if admission is None else _rule(mesh, admission)
    return listeners.routes(name, service, led + rule)


@lru_cache(maxsize=300)
def _rule(mesh: str, admission: Admission) -> bytes:
    """Returns what admits these callers: the same for all inbounds of a service, whose proxies follow it together."""
    shadow = rbac.shadow_access(mesh, admission)
    return _per_route(
        http_rbac_pb2.RBACPerRoute(rbac=http_rbac_pb2.RBAC(rules=rbac.access(mesh, admission), shadow_rules=shadow))
    )


def gate_cluster(framed: Frame) -> Entry:
    """Makes the way to the gate of an inbound."""
    return clusters.internal(framed.place.gate)


def gate_listener(framed: Frame, admissions: tuple[Admission, ...]) -> Entry:
    """Makes the gate of an inbound that is not HTTP; see `gate.listener`."""
    place = framed.place
    return gate.listener(place.gate, framed.gate, place.mesh, admissions)


def chains(framed: Frame, access: InboundAccess) -> Iterator[tuple[bytes, ...]]:
    """Makes the chain of each kind of caller, in parts: what is the same for others, or in others, is one object."""
    place, envoy, limits = framed.place, framed.envoy, framed.limits
    callers = _told_apart(place.mesh, access, is_http=place.is_http, has_gates=envoy.has_gates)
    if place.is_http:
        yield from ((caller, framed.served) for caller in callers)
    else:
        admissions = (access.admission, *(part for _, part in access.groups))
        statistics = f"{resource_names.stat_name(place.name)}.".encode()
        for caller, admission in zip(callers, admissions, strict=True):
            told = _peer_names(admission) if admission.principals and envoy.has_gates else b""
            rule = field_of(_FILTERS, _tcp_rule(place.mesh, admission, statistics))
            yield caller, told, rule, framed.served if admission.principals else framed.refused
    if not access.strict:
        yield from ((serialised(chain),) for chain in _others(place, access.sealed, envoy, limits))


@lru_cache(maxsize=200)
def _told_apart(mesh: str, access: InboundAccess, *, is_http: bool, has_gates: bool) -> tuple[bytes, ...]:
    """Makes the chains of callers with mesh TLS, without their filters: the same ones for all inbounds of a service."""
    # Where it can be decided later, the handshake refuses nobody of the mesh: callers' proxies would try again.
    later = is_http or has_gates

    def mutual(name: str, admission: Admission, label: str, offered: Sequence[str]) -> bytes:
        required = _of_mesh(mesh) if later else tls.downstream(mesh, rbac.names(mesh, admission))
        said = " ".join((label, _digest(admission) if is_http else ""))
        return serialised(_mutual(name, required, said, offered))

    # In STRICT also for callers that offer nothing, or something else: whoever has no chain of a group.
    found = [mutual("mesh_tls", access.admission, access.label, () if access.strict else (tls.ALPN,))]
    # Over HTTP who is admitted is judged by all rules, whatever group somebody offers: what is open ends as one.
    labels = (access.label,) * len(access.groups) if is_http else access.group_labels
    for (groups, part), label in zip(access.groups, labels, strict=True):
        offered = [tls.group_alpn(group) for group in groups]
        found.append(mutual("_".join(("mesh_tls", *groups)), part, label, offered))
    return tuple(found)


def _mutual(
    name: str, required: base_pb2.TransportSocket, callers: str, offered: Sequence[str]
) -> listener_components_pb2.FilterChain:
    """Makes the chain of callers with mesh TLS that offer one of these ALPNs, or whatever if there is none."""
    chain = _chain(name)
    chain.transport_socket.CopyFrom(required)
    if callers.strip():
        chain.metadata.filter_metadata["io.kuma"].update({"callers": callers})
    if offered:
        # Not that it is TLS, which goes without saying in STRICT: the connections of a chain that changes are ended.
        chain.filter_chain_match.application_protocols.extend(offered)
    return chain


@lru_cache(maxsize=1000)
def _of_mesh(mesh: str) -> base_pb2.TransportSocket:
    """Returns what asks for a certificate of a mesh, whoever's: the same one for thousands of inbounds."""
    return tls.downstream(mesh, rbac.names(mesh, NOBODY))


def _digest(admission: Admission) -> str:
    """Stands for who is admitted, where the routes say it and the listener only has to follow."""
    return hashlib.sha256(repr((admission.principals, admission.denied)).encode()).hexdigest()[:16]


def _others(
    place: InboundPlace, sealed: bool, envoy: Capabilities, limits: Limits
) -> Iterator[listener_components_pb2.FilterChain]:
    """Makes the chains of callers that do not speak the mesh's TLS."""
    cluster, reported = resource_names.NOWHERE if sealed else place.cluster, _often(envoy)
    served = filters.tcp(place.name, cluster, "_foreign_tls", reported=reported, logged=place.logged)
    yield _chain("foreign_tls", served)  # whatever else is not in the clear
    clear = plaintext(place, "_plaintext", envoy, limits)
    if sealed:
        served = filters.tcp(place.name, cluster, "_plaintext", reported=reported, logged=place.logged)
        clear = _chain("plaintext", served)
    clear.filter_chain_match.transport_protocol = "raw_buffer"
    yield clear


def plaintext(
    place: InboundPlace, statistics: str, envoy: Capabilities = OLDEST, limits: Limits = NONE
) -> listener_components_pb2.FilterChain:
    """Makes the chain of callers that are not asked who they are.

    Where they are reported, no connection over HTTP goes on for so long that they would not be seen; see `Limits`.
    """
    reported = _often(envoy)
    if place.is_http:
        sanitize = hcm_pb2.HttpConnectionManager.SANITIZE
        served = filters.http(
            place.name,
            place.name,
            sanitize,
            *_trailers(place, envoy),
            statistics=statistics,
            limits=NONE if reported is Reported.NOTHING else limits.unidentified,
            reported=reported,
            logged=place.logged,
            by_pattern=envoy.drops_by_pattern,
        )
    else:
        served = filters.tcp(place.name, place.cluster, statistics, reported=reported, logged=place.logged)
    return _chain("plaintext", served)


def _some(envoy: Capabilities) -> Reported:
    return Reported.SOME if envoy.reports else Reported.NOTHING


def _often(envoy: Capabilities) -> Reported:
    return Reported.OFTEN if envoy.reports else Reported.NOTHING


def _chain(name: str, *links: listener_components_pb2.Filter) -> listener_components_pb2.FilterChain:
    return listener_components_pb2.FilterChain(name=name, filters=links)


def _http(place: InboundPlace, limits: Limits, envoy: Capabilities) -> listener_components_pb2.Filter:
    """Makes an HTTP connection manager that tells the workload who calls, in `x-forwarded-client-cert`.

    Values that the caller sent are replaced (SANITIZE_SET), so the header can be trusted.
    """
    told = hcm_pb2.HttpConnectionManager.SANITIZE_SET
    passes = _DENY_ALL, *_trailers(place, envoy)
    return filters.http(
        place.name,
        place.name,
        told,
        *passes,
        limits=limits,
        reported=_some(envoy),
        logged=place.logged,
        by_pattern=envoy.drops_by_pattern,
    )


def _trailers(place: InboundPlace, envoy: Capabilities) -> Iterator[hcm_pb2.HttpFilter]:
    """Yields what drops trailers by which somebody says who called; over HTTP/1.1 Envoy passes none on."""
    if place.protocol != "http" and envoy.drops_by_pattern:
        yield caller_headers.dropped_from_trailers()


def _tcp(
    place: InboundPlace, cluster: str, logged: Logged, envoy: Capabilities, longest: timedelta | None
) -> listener_components_pb2.Filter:
    """Makes what passes on those of TCP that the filters before it let through."""
    return filters.tcp(
        place.name,
        cluster,
        after_handshake=envoy.waits_for_handshake,
        longest=longest,
        reported=_some(envoy),
        logged=logged,
    )


def _tcp_rule(mesh: str, admission: Admission, statistics: bytes) -> bytes:
    """Makes the filter that admits callers of TCP.

    RBAC decides at a caller's first byte, and counts. The workload is reached before that where it speaks first: so the
    gate decides earlier. An Envoy that has none asks certificates for the names that are admitted, as far as that goes.
    """
    access = _tcp_access(mesh, admission) + field_of(_STATISTICS, statistics)
    return filters.network_filter_of("envoy.filters.network.rbac", _TCP_RULE, access)


_FILTERS = listener_components_pb2.FilterChain.FILTERS_FIELD_NUMBER
_STATISTICS = network_rbac_pb2.RBAC.STAT_PREFIX_FIELD_NUMBER
_TCP_RULE = type_url_of(network_rbac_pb2.RBAC())


@lru_cache(maxsize=300)
def _tcp_access(mesh: str, admission: Admission) -> bytes:
    """Returns the rules of such a filter: the same for all inbounds of a service."""
    shadow = rbac.shadow_access(mesh, admission)
    return serialised(network_rbac_pb2.RBAC(rules=rbac.access(mesh, admission), shadow_rules=shadow))


@lru_cache(maxsize=300)
def _peer_names(admission: Admission) -> bytes:
    return field_of(_FILTERS, serialised(gate.peer_names(admission)))
