"""Builds the parts of a control plane in groups; each group is given the ones that it stands on.

`kuma.app.assembly` lists the parts in the order in which they run.
"""

from __future__ import annotations

import platform
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from prometheus_client import CollectorRegistry

from kuma.admission.dataplane_rules import DataplaneRules
from kuma.admission.membership_rules import MembershipRules
from kuma.admission.mesh_rules import MeshRules
from kuma.admission.permission_rules import PermissionRules
from kuma.admission.secret_rules import SecretRules
from kuma.admission.token_rules import TokenRules
from kuma.api.app import create_app
from kuma.api.context import ApiContext, ApiSettings, Connected, Tokens, no_rekey
from kuma.api.routes import diagnostics
from kuma.api.routes.bootstrap import create_bootstrap_app
from kuma.app import among_others, api_context, token_keys
from kuma.app import metrics as app_metrics
from kuma.app.among_others import Described
from kuma.app.configuration.settings import Settings, XdsServerSection
from kuma.app.local_admins import local_admins
from kuma.app.serving import servers
from kuma.app.serving.certificate_watch import CertificateWatch
from kuma.app.serving.servers import OwnPorts, Servers
from kuma.authorities.registry import Drivers
from kuma.base.audit import Audit, Refusals
from kuma.base.clock import Clock, ClockWatch
from kuma.base.name_service import NameService
from kuma.base.peer_users import PeerUsers
from kuma.base.turns import Turns
from kuma.console import app as console
from kuma.console.context import ConsoleContext
from kuma.console.followed import Followed
from kuma.console.sessions import Sessions
from kuma.coordination.coordination import Alone, Coordination
from kuma.coordination.isolation import Isolation
from kuma.coordination.peers import EXPIRY, Peers
from kuma.foresight.course import Pace
from kuma.kubernetes.pod_tokens import PodTokens
from kuma.kubernetes.store.store import KubernetesStore
from kuma.mtls.controller import RolloutController
from kuma.mtls.progress_reports import ProgressReports
from kuma.mtls.steps.progress import Patience
from kuma.resources import kinds
from kuma.store.manager import ResourceManager, Rules
from kuma.store.sql.store import SqlStore
from kuma.store.views import Views
from kuma.tokens.user_tokens import UserTokens
from kuma.xds.administration.admin_client import AdminClient
from kuma.xds.administration.ca import EnvoyAdminCa
from kuma.xds.bootstrap.service import BootstrapService
from kuma.xds.envoy.listeners import admin_listener
from kuma.xds.envoy.resource import Entry
from kuma.xds.proxies.certified_elsewhere import CertifiedElsewhere
from kuma.xds.proxies.drain import Drain
from kuma.xds.proxies.endpoint_readiness import EndpointReadiness
from kuma.xds.proxies.host_names import HostNames
from kuma.xds.proxies.inbound_review import InboundReview
from kuma.xds.proxies.insights import Insights
from kuma.xds.proxies.issuance import LeafIssuer
from kuma.xds.proxies.meshes import Meshes
from kuma.xds.proxies.metrics import Metrics
from kuma.xds.proxies.proxies_elsewhere import ProxiesElsewhere
from kuma.xds.proxies.proxy import Proxies, ProxyContext
from kuma.xds.proxies.stored_leaves import StoredLeaves
from kuma.xds.proxies.traffic_recorder import TrafficRecorder
from kuma.xds.proxies.workload_health import WorkloadHealth
from kuma.xds.stream.calls import StreamAdmission
from kuma.xds.stream.deregistration import Deregistration
from kuma.xds.stream.front import Front
from kuma.xds.stream.grpc_server import DiscoveryServer
from kuma.xds.stream.health_discovery import HealthDiscovery
from kuma.xds.stream.proxy_authentication import Authenticator
from kuma.xds.stream.reports import Reports
from kuma.xds.stream.revocation import TokenRevocation
from kuma.xds.stream.server import Discovery
from kuma.xds.stream.stream_limits import StreamLimiter

AnyStore = SqlStore | KubernetesStore
_GRACE_AT_START = 60.0
"""Seconds that proxies have to come back after a restart of the control plane."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Foundation:
    """Parts and values that nearly every other part uses."""

    settings: Settings
    store: AnyStore
    clock: Clock
    audit: Audit
    drivers: Drivers
    watch: ClockWatch
    turns: Turns
    instance: str
    started: datetime
    coordination: Coordination
    certificate: CertificateWatch
    collectors: CollectorRegistry
    own_ports: OwnPorts
    pod_tokens: PodTokens | None
    """By which proxies are authenticated on Kubernetes."""
    has_lease: Callable[[], bool]
    """Whether this control plane leads by the Lease on Kubernetes; elsewhere there is none to lose."""


def foundation(
    settings: Settings,
    store: AnyStore,
    clock: Clock,
    audit: Audit,
    drivers: Drivers,
    collectors: CollectorRegistry,
    pod_tokens: PodTokens | None,
    has_lease: Callable[[], bool],
) -> Foundation:
    """Builds what does not depend on other parts."""
    instance = f"{platform.node()}-{secrets.token_hex(2)}"
    shared = settings.store.type == "postgres"
    return Foundation(
        settings=settings,
        store=store,
        clock=clock,
        audit=audit,
        drivers=drivers,
        watch=ClockWatch(clock),
        turns=Turns(),
        instance=instance,
        started=clock.now(),
        coordination=Peers(store, clock, instance) if shared else Alone(),
        certificate=servers.certificate(settings, clock),
        collectors=collectors,
        own_ports=OwnPorts(),
        pod_tokens=pod_tokens,
        has_lease=has_lease,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Views of what is stored, and the connected proxies."""

    views: Views
    proxies: Proxies
    host_names: HostNames
    meshes: Meshes
    inbound_review: InboundReview
    manager: ResourceManager
    authenticator: Authenticator
    metrics: Metrics


def state(base: Foundation) -> State:
    """Builds the views, the table of proxies, and the manager with its rules."""
    views, proxies, metrics = Views(base.store), Proxies(), Metrics(base.collectors)
    app_metrics.of_control_plane(base.collectors, base.store, base.coordination)
    app_metrics.of_meshes(base.collectors, views, proxies, base.clock)
    linger = base.settings.xds_server.connection_linger.delta
    ttl = base.settings.general.dns_cache_ttl.seconds
    host_names = HostNames(base.clock, ttl, metrics.unresolved, NameService().resolve)
    in_kubernetes = base.settings.store.type == "kubernetes"
    how = (base.turns, base.drivers, linger, host_names)
    meshes = Meshes(views, proxies.touch, *how, has_service_addresses=in_kubernetes)
    allowed = servers.allowed_workloads(base.settings.dp_server)
    networks = servers.dataplane_networks(base.settings.dp_server)
    inbound_review = InboundReview(meshes, proxies, base.own_ports, allowed, networks, metrics.withheld)
    rules = _rules(base, views, inbound_review)
    manager = ResourceManager(base.store, rules, strict=base.settings.general.strict)
    for told in (metrics, proxies):
        base.watch.on_jump(told.clock_jumped)
    return State(
        views=views,
        proxies=proxies,
        host_names=host_names,
        meshes=meshes,
        inbound_review=inbound_review,
        manager=manager,
        authenticator=Authenticator(manager, views, base.clock, token_keys.of_proxies(base.settings), base.pod_tokens),
        metrics=metrics,
    )


def _rules(base: Foundation, views: Views, inbound_review: InboundReview) -> Mapping[str, Rules]:
    """Returns the admission rules of each kind."""
    guarded = base.settings.defaults.refuse_weakening
    permissions = PermissionRules(views, base.turns, guarded=guarded)
    return {
        kinds.MESH.name: MeshRules(base.clock, base.drivers, guarded=guarded),
        kinds.DATAPLANE.name: MembershipRules(DataplaneRules(inbound_review.surroundings_of)),
        kinds.SECRET.name: TokenRules(SecretRules(base.clock, base.drivers, guarded=guarded), guarded=guarded),
        kinds.GLOBAL_SECRET.name: TokenRules(guarded=guarded),
        kinds.TRAFFIC_PERMISSION.name: permissions,
        kinds.MESH_TRAFFIC_PERMISSION.name: permissions,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollouts:
    """Controllers that change mutual TLS and permissions of live traffic step by step."""

    controller: RolloutController
    drain: Drain
    leaves: StoredLeaves
    reports: ProgressReports


def rollouts(base: Foundation, known: State) -> Rollouts:
    """Builds the controllers that wait for proxies."""
    limits = base.settings.xds_server
    controller = RolloutController(
        base.store,
        known.views,
        known.meshes,
        known.proxies,
        base.clock,
        metrics=known.metrics,
        patience=Patience(limits.transition_patience.delta, limits.transition_absence.delta),
        watch=base.watch,
        drain=limits.connection_drain.delta,
        coordination=base.coordination,
        drivers=base.drivers,
    )
    reports = ProgressReports(
        base.store,
        known.meshes,
        known.proxies,
        base.clock,
        base.instance,
        controller.report,
        base.coordination,
    )
    patience, drain_time = limits.transition_patience.seconds, limits.connection_drain.seconds
    leaves = StoredLeaves(known.views)
    drain = Drain(known.meshes, known.proxies, leaves, base.clock, patience=patience, drain=drain_time)
    return Rollouts(controller=controller, drain=drain, leaves=leaves, reports=reports)


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


def streams(base: Foundation, known: State) -> Streams:
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
    context = ProxyContext(known.meshes, issuer, insights, clock, lambda address: _admin_secrets(admin_ca, address))
    front = Front(servers.front_limits(settings))
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
    return Streams(
        insights=insights,
        deregistration=deregistration,
        readiness=EndpointReadiness(base.store, known.views, proxies, known.authenticator, clock, deregistration.ended),
        health=health,
        revocation=revocation,
        admin_ca=admin_ca,
        traffic=traffic,
        server=_discovery_server(base, discovery, health_discovery, front, reports),
        isolation=among_others.isolation(base.coordination, clock, base.certificate.names, front),
    )


def _discovery_server(
    base: Foundation, discovery: Discovery, health: HealthDiscovery, front: Front, reports: Reports
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
        can_use_store=lambda: not base.store.problem and base.coordination.silent_for() <= EXPIRY,
        reports=reports if settings.observed_traffic else None,
    )


def _admin_secrets(ca: EnvoyAdminCa, address: str) -> Mapping[str, Entry]:
    credential = ca.proxy(address)
    return admin_listener.secrets(credential.certificate, credential.key, credential.ca)


def listening(base: Foundation, known: State, connected: Streams, users: UserTokens) -> Servers:
    """Builds the HTTP servers, and makes the ports of all servers known as our own."""
    settings, peers = base.settings, PeerUsers.of_this_system()
    context = _api_context(base, known, connected, users, peers)
    api = create_app(context)
    console.install(api, _console_context(base, known, connected, context))
    names, identity = base.certificate.names, base.certificate.identity
    bootstraps = BootstrapService(known.manager, known.views, known.authenticator, connected.server.port, names)
    limits = servers.limits(settings.dp_server.limits)
    dp = create_bootstrap_app(bootstraps.answer, connected.readiness.withdraw, limits, base.clock, base.audit)
    found = Servers(
        servers.api(settings.api_server, api, identity, base.audit, base.clock, peers),
        servers.data_plane(settings.dp_server, dp, identity),
        servers.diagnostics(
            settings.diagnostics,
            diagnostics.create_app(
                base.collectors,
                lambda: _unready(base.store, known.views),
                lambda: among_others.unhealthy(connected.isolation),
            ),
        ),
        connected.server,
    )
    base.own_ports.add(found)
    return found


def _console_context(base: Foundation, known: State, connected: Streams, context: ApiContext) -> ConsoleContext:
    return ConsoleContext(
        api=context,
        sessions=Sessions(base.store, base.clock),
        followed=Followed(known.views),
        observed=api_context.observed(connected.traffic, base.clock),
        audit_file=base.settings.audit_file,
    )


def describe(base: Foundation, known: State, connected: Streams) -> Described:
    """Returns what describes this control plane to the others, and to whoever asks."""
    keys = base.store.keyring.look if isinstance(base.store, SqlStore) else tuple
    return Described(base.settings, base.started, base.clock, known.proxies, lambda: connected.server.bound, keys)


def _pace(limits: XdsServerSection) -> Pace:
    return Pace(limits.transition_patience.delta, limits.transition_absence.delta, limits.connection_drain.delta)


def _unready(store: AnyStore, views: Views) -> str:
    if store.problem:
        what = store.problem if isinstance(store, KubernetesStore) else "the database cannot be used"
        return f"{what}; proxies keep what they have"
    return "" if views.listed else "what is stored has not been read yet"


def administration(base: Foundation, known: State, connected: Streams) -> AdminClient:
    """Builds the client of Envoys' administration."""
    elsewhere = ProxiesElsewhere(base.store, base.coordination)
    return AdminClient(known.meshes, known.proxies, connected.admin_ca.control_plane, base.own_ports, elsewhere)


def _api_context(
    base: Foundation, known: State, connected: Streams, users: UserTokens, peers: PeerUsers | None
) -> ApiContext:
    settings = base.settings.api_server
    elsewhere = ProxiesElsewhere(base.store, base.coordination)
    described = describe(base, known, connected)
    return ApiContext(
        manager=known.manager,
        instance=base.instance,
        instances=lambda: among_others.instances(base.coordination, base.instance, described, base.has_lease()),
        settings=ApiSettings(
            local_admins(settings.authn, peers),
            servers.access(base.settings.access),
            read_only=base.settings.environment == "kubernetes",
        ),
        tokens=Tokens(
            issue=api_context.issue_token(
                known.views,
                base.clock,
                base.audit,
                enabled=base.settings.dp_server.authn.dp_proxy.dp_token.enable_issuer,
            ),
            issue_user=api_context.issue_user_token(users, base.audit),
            verify=api_context.verify_user(users),
        ),
        connected=Connected(
            certificates=api_context.certificates(
                known.proxies, CertifiedElsewhere(known.views, base.coordination), base.turns
            ),
            wanted_configuration=api_context.wanted_configuration(known.meshes, known.proxies, elsewhere),
            envoys=administration(base, known, connected),
        ),
        observation=api_context.observation(
            known.views, base.store, connected.traffic, base.clock, _pace(base.settings.xds_server)
        ),
        clock=base.clock,
        limits=servers.limits(settings.limits),
        costly=app_metrics.of_costly_requests(base.collectors),
        configuration=base.settings.model_dump(by_alias=True, mode="json"),
        rekey=api_context.rekey(base.store, base.audit) if isinstance(base.store, SqlStore) else no_rekey,
        audit=base.audit,
    )
