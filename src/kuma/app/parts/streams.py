"""Builds the discovery server, and what goes along with the streams of proxies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kuma.app import among_others
from kuma.app.parts.foundation import Foundation
from kuma.app.parts.state import State
from kuma.app.serving import servers
from kuma.app.serving.doors import Doors
from kuma.base.audit import Refusals
from kuma.console.record import SharedRecord
from kuma.coordination.isolation import Isolation
from kuma.xds.administration.ca import EnvoyAdminCa
from kuma.xds.envoy.listeners import admin_listener
from kuma.xds.envoy.resource import Entry
from kuma.xds.proxies.elsewhere.proxies_elsewhere import ProxiesElsewhere
from kuma.xds.proxies.insights import Insights
from kuma.xds.proxies.leaves.issuance import LeafIssuer
from kuma.xds.proxies.proxy import ProxyContext
from kuma.xds.proxies.readiness.endpoint_readiness import EndpointReadiness
from kuma.xds.proxies.readiness.workload_health import WorkloadHealth
from kuma.xds.proxies.traffic_recorder import TrafficRecorder
from kuma.xds.stream.calls import StreamAdmission
from kuma.xds.stream.deregistration import Deregistration
from kuma.xds.stream.front import Front
from kuma.xds.stream.grpc_server import DiscoveryServer
from kuma.xds.stream.health_discovery import HealthDiscovery
from kuma.xds.stream.questions import Questions
from kuma.xds.stream.reports import Reports
from kuma.xds.stream.revocation import TokenRevocation
from kuma.xds.stream.server import Discovery
from kuma.xds.stream.stream_limits import StreamLimiter

_GRACE_AT_START = 60.0
"""Seconds that proxies have to come back after a restart of the control plane."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Streams:
    """The discovery server, and what goes along with the streams of proxies."""

    insights: Insights
    deregistration: Deregistration
    readiness: EndpointReadiness
    health: WorkloadHealth
    revocation: TokenRevocation
    admin_ca: EnvoyAdminCa
    traffic: TrafficRecorder
    server: DiscoveryServer
    isolation: Isolation | None
    """None if there can be no other control planes."""
    doors: Doors
    record: SharedRecord


def build_streams(base: Foundation, known: State) -> Streams:
    """Builds the discovery server."""
    settings, clock, proxies = base.settings.xds_server, base.clock, known.proxies
    insights, issuer = (
        Insights(base.store, clock, base.instance, base.coordination),
        LeafIssuer(clock, known.metrics, base.audit),
    )
    elsewhere = ProxiesElsewhere(base.store, base.coordination)
    deregistration = Deregistration(
        known.manager,
        clock,
        grace=settings.dataplane_deregistration_delay.seconds,
        grace_at_start=_GRACE_AT_START,
        is_connected=lambda key: key in proxies or base.coordination.has(key),
        departure=elsewhere.departure,
    )

    def somebody_left() -> None:
        if base.coordination.leads:
            insights.take_stock_again()
            deregistration.take_stock_again()

    base.coordination.on_change(somebody_left)
    revocation = TokenRevocation(known.views, proxies, clock, known.authenticator.check, base.turns)
    if base.pod_tokens is not None:
        base.pod_tokens.on_change(revocation.look_at)
    for told in (issuer, revocation):
        base.watch.on_jump(told.clock_jumped)
    admin_ca = EnvoyAdminCa(base.store, clock)
    context = ProxyContext(
        known.meshes,
        issuer,
        insights,
        clock,
        lambda address: _admin_secrets(admin_ca, address),
        known.authenticator.check,
    )
    front = Front(servers.front_limits(settings))
    doors = Doors(front)
    limiter = StreamLimiter(servers.stream_limits(settings), clock)
    refusals, traffic = Refusals(base.audit, clock), TrafficRecorder(base.store, clock, known.metrics.observed)
    admission = StreamAdmission(known.authenticator, limiter, refusals, front)
    discovery = Discovery(
        proxies,
        context,
        admission,
        deregistration,
        known.metrics,
        send_seconds=settings.send_timeout.seconds,
        most=settings.concurrent_streams,
        elsewhere=elsewhere,
        traffic=traffic if settings.observed_traffic else None,
    )
    health = WorkloadHealth(base.store, known.views, known.meshes, proxies, clock)
    health_discovery = HealthDiscovery(
        proxies, known.meshes, admission, health, servers.probe_defaults(base.settings.dp_server.hds), revocation
    )
    reports = Reports(known.meshes, admission, traffic, revocation, clock, most=2 * settings.concurrent_streams)
    record = among_others.record(base.settings.audit_file, base.store, clock, base.certificate.names)
    questions = Questions(record.answer, admission, clock)
    return Streams(
        insights=insights,
        deregistration=deregistration,
        readiness=EndpointReadiness(
            base.store, known.views, proxies, known.authenticator, clock, deregistration.ended, base.coordination
        ),
        health=health,
        revocation=revocation,
        admin_ca=admin_ca,
        traffic=traffic,
        server=_discovery_server(base, discovery, health_discovery, front, reports, questions),
        isolation=among_others.isolation(base.coordination, clock, base.certificate.names, doors, base.worker.siblings),
        doors=doors,
        record=record,
    )


def _discovery_server(
    base: Foundation,
    discovery: Discovery,
    health: HealthDiscovery,
    front: Front,
    reports: Reports,
    questions: Questions,
) -> DiscoveryServer:
    settings = base.settings.xds_server
    return DiscoveryServer(
        discovery,
        health,
        front,
        base.settings.dp_server.interface,
        settings.port,
        base.certificate.identity,
        streams=settings.concurrent_streams,
        can_use_store=base.can_use_store,
        questions=questions,
        reports=reports if settings.observed_traffic else None,
        listen=base.worker.listen,
        is_shared=base.worker.is_one_of_several,
    )


def _admin_secrets(ca: EnvoyAdminCa, address: str) -> Mapping[str, Entry]:
    credential = ca.proxy(address)
    return admin_listener.secrets(credential.certificate, credential.key, credential.ca)
