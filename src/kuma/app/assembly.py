"""The composition root: builds every part of the control plane, and nothing else does.

`kuma.app.servers` makes servers of some of the parts, as the settings say; `kuma.app.api_context` has what the API
is given.
"""

from __future__ import annotations

import platform
import secrets
import uuid
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry

from kuma.admission.dataplane_rules import DataplaneRules, SurroundingsOf
from kuma.admission.membership_rules import MembershipRules
from kuma.admission.mesh_rules import MeshRules
from kuma.admission.permission_rules import PermissionRules
from kuma.admission.secret_rules import SecretRules
from kuma.admission.token_rules import TokenRules
from kuma.api.app import create_app
from kuma.api.context import ApiContext, ApiSettings
from kuma.api.http.server import HttpServer
from kuma.api.ready_log import ReadyLog
from kuma.api.routes import diagnostics
from kuma.api.routes.bootstrap import create_bootstrap_app
from kuma.app import api_context, server_certificate, servers
from kuma.app.local_admins import local_admins
from kuma.app.servers import HTTP, HTTPS, Servers
from kuma.app.settings import Settings
from kuma.authorities import registry
from kuma.authorities.clean_up import CleanUp
from kuma.authorities.registry import Drivers
from kuma.authorities.root_renewal import RootRenewal
from kuma.base import aio, files
from kuma.base.audit import Audit, AuditFile
from kuma.base.clock import Clock, ClockWatch
from kuma.base.peer_users import PeerUsers
from kuma.base.turns import Turns
from kuma.mtls.controller import RolloutController
from kuma.mtls.steps.progress import Patience
from kuma.resources import kinds
from kuma.resources.config import ConfigSpec
from kuma.resources.mesh import MeshSpec
from kuma.resources.resource import Resource
from kuma.store import audited, backup
from kuma.store.manager import ResourceManager, Rules
from kuma.store.sql import SqlStore
from kuma.store.sqlite import open_sqlite
from kuma.store.views import Views
from kuma.tokens.user_tokens import UserTokens
from kuma.xds.administration.admin_client import AdminClient
from kuma.xds.administration.ca import EnvoyAdminCa
from kuma.xds.bootstrap.server_names import ServerNames
from kuma.xds.bootstrap.service import BootstrapService
from kuma.xds.envoy import admin_listener
from kuma.xds.envoy.resource import Entry
from kuma.xds.proxies.drain import Drain
from kuma.xds.proxies.endpoint_readiness import EndpointReadiness
from kuma.xds.proxies.inbound_review import InboundReview
from kuma.xds.proxies.insights import Insights
from kuma.xds.proxies.issuance import LeafIssuer
from kuma.xds.proxies.meshes import Meshes
from kuma.xds.proxies.metrics import LeafExpiry, Metrics
from kuma.xds.proxies.proxy import Proxies
from kuma.xds.stream.deregistration import Deregistration
from kuma.xds.stream.proxy_authentication import Authenticator
from kuma.xds.stream.revocation import TokenRevocation
from kuma.xds.stream.server import Discovery, DiscoveryServer
from kuma.xds.stream.stream_limits import StreamLimiter

log = structlog.get_logger(__name__)

_GRACE_AT_START = 60.0
"""Seconds that proxies have to come back after a restart of the control plane."""


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """A control plane that is built and not started: its parts in the order in which they stand on each other."""

    components: tuple[tuple[str, aio.Component], ...]
    manager: ResourceManager
    views: Views
    proxies: Proxies
    meshes: Meshes
    users: UserTokens
    envoy_admin_ca: EnvoyAdminCa
    inbound_review: InboundReview
    api: Mapping[str, HttpServer]
    dp: HttpServer
    diagnostics: HttpServer
    xds: DiscoveryServer

    async def run(self) -> None:
        """Run until cancelled."""
        await aio.supervise(self.components)


async def run(settings: Settings, clock: Clock) -> None:
    """Open the store, build the control plane and run it until cancelled."""
    files.tighten(settings.work_dir)
    async with AsyncExitStack() as stack:
        store = await open_sqlite(settings.database, clock, _expanded(settings.store.encryption_key_file))
        stack.push_async_callback(store.close)
        audit = AuditFile(settings.audit_file, clock)
        stack.callback(audit.close)
        control_plane = build(settings, store, clock, audit)
        await prepare(settings, control_plane)
        await control_plane.run()


async def migrate(settings: Settings, clock: Clock, *, anew: bool) -> None:
    """Bring the store to this version's schema; see `open_sqlite` for `anew`."""
    store = await open_sqlite(settings.database, clock, _expanded(settings.store.encryption_key_file), anew=anew)
    await store.close()


def backup_store(settings: Settings, target: Path) -> None:
    """Copy the store to a file; see `backup.backup`."""
    backup.backup(settings.database, target)


def restore_store(settings: Settings, source: Path) -> None:
    """Put a backup in the place of the store; see `backup.restore`."""
    key = _expanded(settings.store.encryption_key_file)
    backup.restore(source, settings.database, key or settings.database.with_name(settings.database.name + ".key"))


def build(
    settings: Settings, store: SqlStore, clock: Clock, audit: Audit, drivers: Drivers = registry.STANDARD
) -> ControlPlane:
    """Builds all parts of a control plane over an open store."""
    store.on_commit(audited.recorder(audit))
    collectors = CollectorRegistry()
    instance = f"{platform.node()}-{secrets.token_hex(2)}"
    certificate = servers.certificate(settings, clock)
    views, proxies, turns = Views(store), Proxies(), Turns()
    guarded = settings.defaults.refuse_weakening
    rules = _rules(views, clock, turns, drivers, lambda found: inbound_review.surroundings_of(found), guarded=guarded)
    manager = ResourceManager(store, rules, strict=settings.general.strict)

    metrics, watch = Metrics(collectors), ClockWatch(clock)
    collectors.register(LeafExpiry(lambda: _ends_of_leaves(proxies)))
    meshes = Meshes(views, proxies.touch, drivers)
    inbound_review = InboundReview(
        views,
        meshes,
        proxies,
        lambda: listening.ports(),
        servers.allowed_workloads(settings.dp_server),
        metrics.withheld,
    )
    authenticator = Authenticator(manager, views, clock)
    insights = Insights(store, clock, instance)
    deregistration = Deregistration(
        manager,
        clock,
        grace=settings.xds_server.deregistration_seconds,
        grace_at_start=_GRACE_AT_START,
        is_connected=proxies.__contains__,
    )
    patience = Patience(
        timedelta(seconds=settings.xds_server.patience_seconds),
        timedelta(seconds=settings.xds_server.absence_seconds),
    )
    rollouts = RolloutController(store, views, meshes, proxies, clock, metrics, patience, watch, drivers)
    endpoint_readiness = EndpointReadiness(store, views, proxies, authenticator, clock)
    drain = Drain(
        views,
        meshes,
        proxies,
        clock,
        patience=settings.xds_server.patience_seconds,
        drain=settings.xds_server.drain_seconds,
    )
    revocation = TokenRevocation(views, proxies, clock, authenticator.check)
    envoy_admin_ca = EnvoyAdminCa(store, clock)
    issuer, root_renewal = LeafIssuer(clock, metrics, audit), RootRenewal(store, views, clock, drivers)
    for told in (metrics, issuer, root_renewal, revocation, proxies):
        watch.on_jump(told.clock_jumped)
    discovery = Discovery(
        authenticator,
        deregistration,
        proxies,
        meshes,
        issuer,
        insights,
        clock,
        metrics,
        StreamLimiter(servers.stream_limits(settings.xds_server), clock),
        audit,
        lambda address: _admin_secrets(envoy_admin_ca, address),
        send_seconds=settings.xds_server.send_seconds,
    )
    xds = DiscoveryServer(
        discovery,
        settings.dp_server.interface,
        settings.xds_server.port,
        certificate.chain,
        certificate.key,
        streams=settings.xds_server.concurrent_streams,
    )

    users, peers = UserTokens(store, clock), PeerUsers.of_this_system()
    context = ApiContext(
        manager,
        instance,
        ApiSettings(local_admins(settings.api_server.authn, peers), servers.access(settings.access)),
        api_context.issue_token(views, clock, audit),
        api_context.issue_user_token(users, audit),
        api_context.verify_user(users),
        clock,
        servers.limits(settings.api_server.limits),
        settings.model_dump(by_alias=True, mode="json"),
        lambda: api_context.certificates(proxies),
        api_context.rekey(store, audit),
        api_context.wanted_configuration(meshes, proxies),
        audit,
        AdminClient(meshes, proxies, envoy_admin_ca.control_plane, lambda: listening.ports()),
    )
    names = ServerNames.of(certificate.chain.read_bytes(), certificate.ca.read_bytes())
    bootstrap_service = BootstrapService(manager, views, authenticator, xds.port, names)
    dp_limits = servers.limits(settings.dp_server.limits)
    listening = Servers(
        servers.api(settings.api_server, create_app(context), certificate, audit, clock, peers),
        servers.data_plane(
            settings.dp_server,
            create_bootstrap_app(bootstrap_service.answer, endpoint_readiness.withdraw, dp_limits, clock, audit),
            certificate,
        ),
        servers.diagnostics(settings.diagnostics, diagnostics.create_app(collectors, lambda: views.listed)),
        xds,
    )

    parts: tuple[tuple[str, aio.Component], ...] = (
        ("clock watch", watch),
        ("insights", insights),
        ("mesh views", views),
        ("deregistration", deregistration),
        ("endpoint readiness", endpoint_readiness),
        ("drain", drain),
        ("rollouts", rollouts),
        ("token revocation", revocation),
        ("root renewal", root_renewal),
        ("clean-up of authorities", CleanUp(store, views, drivers)),
        ("discovery server", xds),
        ("bootstrap server", listening.dp),
        *listening.api.items(),
        ("diagnostics server", listening.diagnostics),
        ("ready log", _ready_log(settings, listening, views, certificate)),
    )
    return ControlPlane(parts, manager, views, proxies, meshes, users, envoy_admin_ca, inbound_review, *listening)


def _rules(
    views: Views, clock: Clock, turns: Turns, drivers: Drivers, surroundings_of: SurroundingsOf, *, guarded: bool
) -> Mapping[str, Rules]:
    """Returns the admission rules of each kind."""
    permissions = PermissionRules(views, turns, guarded=guarded)
    return {
        kinds.MESH.name: MeshRules(clock, drivers, guarded=guarded),
        kinds.DATAPLANE.name: MembershipRules(DataplaneRules(surroundings_of)),
        kinds.SECRET.name: TokenRules(SecretRules(clock, drivers)),
        kinds.GLOBAL_SECRET.name: TokenRules(),
        kinds.TRAFFIC_PERMISSION.name: permissions,
        kinds.MESH_TRAFFIC_PERMISSION.name: permissions,
    }


def _admin_secrets(ca: EnvoyAdminCa, address: str) -> Mapping[str, Entry]:
    credential = ca.proxy(address)
    return admin_listener.secrets(credential.certificate, credential.key, credential.ca)


def _ready_log(
    settings: Settings, listening: Servers, views: Views, certificate: server_certificate.ServerCertificate
) -> ReadyLog:
    """Returns the message that is logged once everything listens."""
    api = listening.api
    named = {"api": api.get(HTTP) or api.get(HTTPS), "bootstrap": listening.dp}

    async def listed() -> None:
        await views.until(lambda: True)

    return ReadyLog(
        {name: server for name, server in named.items() if server is not None},
        (listed, listening.xds.port, listening.diagnostics.port, *(server.port for server in api.values())),
        {"work_dir": str(settings.work_dir), "ca": str(certificate.ca)},
    )


def _ends_of_leaves(proxies: Proxies) -> Iterator[tuple[str, datetime]]:
    for proxy in proxies:
        if proxy.keeper.identity is not None:
            yield proxy.key.mesh, proxy.keeper.identity.not_after


async def prepare(settings: Settings, control_plane: ControlPlane) -> None:
    """Make what has to be in the store before anything serves."""
    await control_plane.users.ensure(admin_token=settings.api_server.authn.tokens.bootstrap_admin_token)
    await control_plane.envoy_admin_ca.ensure()
    await control_plane.inbound_review.recall(control_plane.manager.store)
    await _first_mesh(settings, control_plane.manager)


async def _first_mesh(settings: Settings, manager: ResourceManager) -> None:
    """Name a new store, and create the Mesh `default` in it, unless that is not wanted or there are meshes already."""
    if await manager.find(kinds.CLUSTER_ID) is None:
        await manager.put(Resource(kinds.CLUSTER_ID, ConfigSpec(config=str(uuid.uuid4()))))
    if settings.defaults.skip_mesh_creation or (await manager.list(kinds.MESH.name, limit=1)).total:
        return
    await manager.put(Resource(kinds.MESH.key("default"), MeshSpec()))
    log.info("mesh created", mesh="default")


def _expanded(path: Path | None) -> Path | None:
    return path.expanduser() if path else None
