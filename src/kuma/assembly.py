"""The composition root: builds every part of the control plane, and nothing else does."""

from __future__ import annotations

import platform
import secrets
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import structlog
from prometheus_client import CollectorRegistry

from kuma.api import diagnostics
from kuma.api.app import create_app
from kuma.api.bootstrap import create_bootstrap_app
from kuma.api.callers import Access, Grant
from kuma.api.client_certificates import ClientCertificates
from kuma.api.connections import ConnectionLimits
from kuma.api.context import ApiContext, ApiSettings, Certificate
from kuma.api.limits import Limits
from kuma.api.ready import Announcement
from kuma.api.server import HttpServer
from kuma.base import aio, files
from kuma.base.audit import Audit, AuditFile, Refusals
from kuma.base.clock import Clock
from kuma.base.limits import Rate
from kuma.config import AccessSection, ApiServer, LimitsSection, Settings
from kuma.pki import client_cas, keyring, serving, tokens
from kuma.pki.envoy_admin import EnvoyAdminCa
from kuma.pki.followers import Patience
from kuma.pki.issuer import Issuer
from kuma.pki.leftovers import Leftovers
from kuma.pki.mesh_rules import MeshRules
from kuma.pki.renewal import Renewals
from kuma.pki.secret_rules import SecretRules
from kuma.pki.token_rules import TokenRules
from kuma.pki.user_tokens import UserTokens
from kuma.policy.rules import PermissionRules
from kuma.resources import addresses, durations, kinds
from kuma.resources.config import ConfigSpec
from kuma.resources.mesh import MeshSpec
from kuma.resources.resource import Resource
from kuma.store import audited, backup
from kuma.store.manager import ResourceManager
from kuma.store.sql import SqlStore
from kuma.store.sqlite import open_sqlite
from kuma.store.views import Views
from kuma.xds import administration, dump
from kuma.xds.admin_client import AdminClient
from kuma.xds.arrivals import Arrivals
from kuma.xds.credentials import Credentials
from kuma.xds.dataplane_rules import DataplaneRules
from kuma.xds.departures import Departures
from kuma.xds.entry import Entry
from kuma.xds.gate import Gate, StreamLimits
from kuma.xds.handout import Handout
from kuma.xds.insights import Insights
from kuma.xds.issuing import Issuing
from kuma.xds.meshes import Meshes
from kuma.xds.metrics import LeafExpiry, Metrics
from kuma.xds.names import ServerNames
from kuma.xds.proxy import Proxies, Proxy
from kuma.xds.publisher import Publisher
from kuma.xds.server import Discovery, DiscoveryServer
from kuma.xds.transitions import Transitions
from kuma.xds.turnover import Turnover

log = structlog.get_logger(__name__)

HTTP, HTTPS = "API server", "API server, HTTPS"
_GRACE_AT_START = 60.0
"""Seconds that proxies have to come back after a restart of the control plane."""


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """A control plane that is built and not started: its parts in the order in which they stand on each other."""

    components: tuple[tuple[str, aio.Component], ...]
    manager: ResourceManager
    views: Views
    proxies: Proxies
    users: UserTokens
    envoy_admin_ca: EnvoyAdminCa
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


async def migrate(settings: Settings, clock: Clock) -> None:
    """Bring the store to this version's schema."""
    store = await open_sqlite(settings.database, clock, _expanded(settings.store.encryption_key_file))
    await store.close()


def backup_store(settings: Settings, target: Path) -> None:
    """Copy the store to a file; see `backup.backup`."""
    backup.backup(settings.database, target)


def restore_store(settings: Settings, source: Path) -> None:
    """Put a backup in the place of the store; see `backup.restore`."""
    key = _expanded(settings.store.encryption_key_file)
    backup.restore(source, settings.database, key or settings.database.with_name(settings.database.name + ".key"))


def build(settings: Settings, store: SqlStore, clock: Clock, audit: Audit) -> ControlPlane:
    """All parts of a control plane over an open store."""
    store.on_commit(audited.recorder(audit))
    registry = CollectorRegistry()
    instance = f"{platform.node()}-{secrets.token_hex(2)}"
    certificate = _certificate(settings, clock)
    views, proxies = Views(store), Proxies()
    manager = ResourceManager(
        store,
        {
            kinds.MESH.name: MeshRules(clock),
            kinds.DATAPLANE.name: DataplaneRules(views, proxies, lambda: own_ports()),
            kinds.SECRET.name: TokenRules(SecretRules(clock)),
            kinds.GLOBAL_SECRET.name: TokenRules(),
            kinds.TRAFFIC_PERMISSION.name: PermissionRules(),
            kinds.MESH_TRAFFIC_PERMISSION.name: PermissionRules(),
        },
    )

    metrics = Metrics(registry)
    registry.register(LeafExpiry(lambda: _ends_of_leaves(proxies)))
    meshes = Meshes(views, proxies.touch)
    arrivals = Arrivals(manager, views, clock)
    insights = Insights(store, clock, instance)
    departures = Departures(
        manager,
        clock,
        grace=settings.xds_server.deregistration_seconds,
        grace_at_start=_GRACE_AT_START,
        is_connected=proxies.__contains__,
    )
    transitions = Transitions(
        store,
        views,
        meshes,
        proxies,
        clock,
        metrics,
        Patience(
            timedelta(seconds=settings.xds_server.patience_seconds),
            timedelta(seconds=settings.xds_server.absence_seconds),
        ),
    )
    publisher = Publisher(store, views, proxies, arrivals, clock)
    turnover = Turnover(views, meshes, proxies, clock, patience=settings.xds_server.patience_seconds)
    credentials = Credentials(views, proxies, clock, arrivals.authenticate)
    issuing = Issuing(Issuer(clock), clock, metrics, audit)
    stream_limits = StreamLimits(
        Rate(settings.xds_server.streams_per_second, settings.xds_server.stream_burst),
        Rate(settings.xds_server.requests_per_second, settings.xds_server.request_burst),
        settings.xds_server.pending_streams,
    )
    envoy_admin_ca = EnvoyAdminCa(store, clock)

    def admin_secrets(address: str) -> Mapping[str, Entry]:
        credential = envoy_admin_ca.proxy(address)
        return administration.secrets(credential.certificate, credential.key, credential.ca)

    discovery = Discovery(
        arrivals,
        departures,
        proxies,
        meshes,
        issuing,
        insights,
        clock,
        metrics,
        Gate(stream_limits, clock),
        audit,
        admin_secrets,
        send_seconds=settings.xds_server.send_seconds,
    )
    host = settings.dp_server.interface
    xds = DiscoveryServer(
        discovery,
        host,
        settings.xds_server.port,
        certificate.chain,
        certificate.key,
        streams=settings.xds_server.concurrent_streams,
    )

    async def issue_token(
        mesh: str, name: str, tags: Mapping[str, Sequence[str]], proxy_type: str, valid_for: timedelta
    ) -> str:
        token = tokens.issue_token(
            mesh,
            views.view(mesh).secrets,
            name=name,
            tags=tags,
            kind=proxy_type,
            valid_for=valid_for,
            now=clock.now(),
        )
        audit.record("token issued", kind="dataplane", mesh=mesh, name=name, tags=tags, **keyring.described(token))
        return token

    users = UserTokens(store, clock)

    async def issue_user_token(name: str, groups: Sequence[str], valid_for: timedelta) -> str:
        token = await users.issue(name, groups, valid_for)
        audit.record("token issued", kind="user", name=name, groups=groups, **keyring.described(token))
        return token

    async def verify_user(token: str) -> tuple[str, tuple[str, ...]]:
        user = await users.verify(token)
        return user.name, user.groups

    api_settings = ApiSettings(settings.api_server.authn.localhost_is_admin, _access(settings.access))

    def certificates() -> list[Certificate]:
        return [_certificate_of(proxy) for proxy in proxies if proxy.keeper.identity is not None]

    async def rekey() -> None:
        await store.rekey()
        audit.record("secrets sealed anew")
        log.info("secrets sealed anew under a new key-encryption key")

    def wanted_configuration(mesh: str, name: str) -> Mapping[str, object]:
        state = meshes.state(mesh)
        bundle = [state.trust.bundle] if state.trust.bundle else []
        proxy = proxies.get(kinds.DATAPLANE.key(name, mesh))
        admin_port = proxy.admin_port if proxy is not None else 0
        return dump.config_dump(state.config.snapshot(name, {e.name: e for e in bundle}, admin_port))

    context = ApiContext(
        manager,
        instance,
        api_settings,
        issue_token,
        issue_user_token,
        verify_user,
        clock,
        _limits(settings.api_server.limits),
        settings.model_dump(by_alias=True, mode="json"),
        certificates,
        rekey,
        wanted_configuration,
        audit,
        AdminClient(meshes, proxies, envoy_admin_ca.control_plane, lambda: own_ports()),
    )
    api = _api_servers(settings.api_server, create_app(context), certificate, audit, clock)
    names = ServerNames.of(certificate.chain.read_bytes(), certificate.ca.read_bytes())
    handout = Handout(manager, views, arrivals, xds.port, names)
    dp = HttpServer(
        create_bootstrap_app(handout.answer, publisher.withdraw, _limits(settings.dp_server.limits), clock),
        host,
        settings.dp_server.port,
        tls=(certificate.chain, certificate.key),
        setting="KUMA_DP_SERVER_PORT",
        limits=_connections(settings.dp_server.limits),
    )
    health = HttpServer(
        diagnostics.create_app(registry, lambda: views.listed),
        settings.diagnostics.server_interface,
        settings.diagnostics.server_port,
        setting="KUMA_DIAGNOSTICS_SERVER_PORT",
    )

    def own_ports() -> Mapping[int, str]:
        found = {server.bound: name for name, server in api.items()}
        found |= {dp.bound: "data plane server", health.bound: "diagnostics server", xds.bound: "discovery server"}
        return {port: name for port, name in found.items() if port}

    parts: tuple[tuple[str, Any], ...] = (
        ("insights", insights),
        ("mesh views", views),
        ("departures", departures),
        ("publisher", publisher),
        ("turnover", turnover),
        ("transitions", transitions),
        ("credentials", credentials),
        ("renewals", Renewals(store, views, clock)),
        ("leftovers", Leftovers(store, views)),
        ("discovery server", xds),
        ("bootstrap server", dp),
        *api.items(),
        ("diagnostics server", health),
        ("announcement", _announcement(settings, api, dp, health, xds, views, certificate)),
    )
    return ControlPlane(parts, manager, views, proxies, users, envoy_admin_ca, api, dp, health, xds)


def _announcement(
    settings: Settings,
    api: Mapping[str, HttpServer],
    dp: HttpServer,
    health: HttpServer,
    xds: DiscoveryServer,
    views: Views,
    certificate: serving.ServerCertificate,
) -> Announcement:
    """What is said once everything listens."""
    named = {"api": api.get(HTTP) or api.get(HTTPS), "bootstrap": dp}

    async def listed() -> None:
        await views.until(lambda: True)

    return Announcement(
        {name: server for name, server in named.items() if server is not None},
        (listed, xds.port, health.port, *(server.port for server in api.values())),
        {"work_dir": str(settings.work_dir), "ca": str(certificate.ca)},
    )


def _api_servers(
    settings: ApiServer, app: Any, certificate: serving.ServerCertificate, audit: Audit, clock: Clock
) -> dict[str, HttpServer]:
    """The API over HTTP, HTTPS or both."""
    found = {}
    http, https = settings.http, settings.https
    if https.require_client_cert and http.enabled and not addresses.is_loopback(http.interface):
        log.warning(
            "client certificates are required over HTTPS only, but other machines reach the API over HTTP, too; "
            "KUMA_API_SERVER_HTTP_ENABLED=false ends that",
            interface=http.interface,
        )
    if http.enabled:
        found[HTTP] = HttpServer(
            app, http.interface, http.port, setting="KUMA_API_SERVER_HTTP_PORT", limits=_connections(settings.limits)
        )
    if https.enabled:
        tls = (certificate.chain, certificate.key)
        found[HTTPS] = HttpServer(
            app,
            https.interface,
            https.port,
            setting="KUMA_API_SERVER_HTTPS_PORT",
            tls=tls,
            clients=_clients(settings, audit, clock),
            limits=_connections(settings.limits),
        )
    return found


def _clients(settings: ApiServer, audit: Audit, clock: Clock) -> ClientCertificates | None:
    """What is asked of the certificates of the API's clients; nothing if there is nothing to verify them by."""
    trusted = client_cas.read(settings.https.tls_ca_file, settings.auth.client_certs_dir)
    refusals = Refusals(audit, clock)

    def refused(address: str, reason: str) -> None:
        refusals.record(address, server=HTTPS, reason=reason)

    return ClientCertificates(trusted, settings.https.require_client_cert, refused, clock) if trusted else None


def _limits(settings: LimitsSection) -> Limits:
    return Limits(Rate(settings.requests_per_second, settings.burst), settings.concurrent)


def _connections(settings: LimitsSection) -> ConnectionLimits:
    def seconds(text: str) -> float:
        return durations.parse_duration(text).total_seconds()

    return ConnectionLimits(
        per_address=settings.connections,
        total=settings.total_connections,
        handshake=seconds(settings.handshake_timeout),
        head=seconds(settings.head_timeout),
        idle=seconds(settings.idle_timeout),
        send=seconds(settings.send_timeout),
        head_bytes=settings.head_bytes,
        url_bytes=settings.url_bytes,
    )


def _access(settings: AccessSection) -> Access:
    grants = {
        name: Grant.of(section.users, section.groups)
        for name, section in ((name, getattr(settings.static, name)) for name in type(settings.static).model_fields)
    }
    return Access(**grants, anonymous_reads=settings.anonymous_reads)


def _ends_of_leaves(proxies: Proxies) -> Iterator[tuple[str, datetime]]:
    for proxy in proxies:
        if proxy.keeper.identity is not None:
            yield proxy.key.mesh, proxy.keeper.identity.not_after


def _certificate_of(proxy: Proxy) -> Certificate:
    identity = proxy.keeper.identity
    assert identity is not None
    return Certificate(
        mesh=proxy.key.mesh,
        dataplane=proxy.key.name,
        serial=f"{identity.serial:x}",
        spiffe_ids=identity.uris,
        authority=identity.backend,
        not_before=identity.not_before,
        not_after=identity.not_after,
        reason=proxy.keeper.reason,
    )


def _certificate(settings: Settings, clock: Clock) -> serving.ServerCertificate:
    general = settings.general
    if general.tls_cert_file and general.tls_key_file and general.tls_ca_file:
        return serving.given(general.tls_cert_file, general.tls_key_file, general.tls_ca_file)
    hosts = (*serving.own_names(settings.dp_server.interface), *general.hostnames)
    return serving.ensure(settings.work_dir, hosts, clock.now())


async def prepare(settings: Settings, control_plane: ControlPlane) -> None:
    """Make what has to be in the store before anything serves."""
    await control_plane.users.ensure(admin_token=settings.api_server.authn.tokens.bootstrap_admin_token)
    await control_plane.envoy_admin_ca.ensure()
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
