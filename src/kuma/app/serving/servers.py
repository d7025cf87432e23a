"""The HTTP servers of a control plane, and whom and how much they admit, as the settings say."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import structlog

from kuma.api.http.access_control import Access, Grant
from kuma.api.http.client_certificates import ClientCertificates
from kuma.api.http.connections import ConnectionLimits
from kuma.api.http.request_limits import RequestLimits
from kuma.api.http.server import HttpServer
from kuma.app.configuration.settings import (
    AccessSection,
    ApiServerSection,
    DiagnosticsSection,
    DpServerSection,
    HdsSection,
    LimitsSection,
    Settings,
    XdsServerSection,
)
from kuma.app.serving import client_cas, server_certificate
from kuma.app.serving.certificate_watch import CertificateWatch
from kuma.base.audit import Audit, Refusals
from kuma.base.clock import Clock
from kuma.base.errors import Misconfigured
from kuma.base.system import sockets
from kuma.base.system.peer_users import PeerUsers
from kuma.base.tls.server_identity import ServerIdentity
from kuma.base.values import addresses
from kuma.base.values.rate_limit import Rate
from kuma.policy import workloads
from kuma.policy.workloads import Destination
from kuma.xds.envoy.services.health_checks import ProbeDefaults
from kuma.xds.stream import grpc_server
from kuma.xds.stream.front import FrontLimits
from kuma.xds.stream.grpc_server import DiscoveryServer
from kuma.xds.stream.stream_limits import StreamLimits

log = structlog.get_logger(__name__)

HTTP, HTTPS = "API server", "API server, HTTPS"
HTTP_PORT, HTTPS_PORT = "KUMA_API_SERVER_HTTP_PORT", "KUMA_API_SERVER_HTTPS_PORT"
DP_PORT, DIAGNOSTICS_PORT = "KUMA_DP_SERVER_PORT", "KUMA_DIAGNOSTICS_SERVER_PORT"
XDS_PORT = grpc_server.SETTING


class Servers(NamedTuple):
    """All listening servers."""

    api: Mapping[str, HttpServer]
    """By the names `HTTP` and `HTTPS`."""
    dp: HttpServer
    diagnostics: HttpServer
    xds: DiscoveryServer


class OwnPorts:
    """The ports that servers of this process listen on; each server is added once it is built."""

    def __init__(self, others: Iterable[int] = ()) -> None:
        """`others` are ports of other processes of the same control plane."""
        self._others = dict.fromkeys(others, "diagnostics server of another worker")
        self._servers: list[tuple[str, sockets.OnPort]] = []

    def add(self, servers: Servers) -> None:
        """Count the ports of these servers as ours from now on."""
        self._servers += servers.api.items()
        self._servers.append(("data plane server", servers.dp))
        self._servers.append(("diagnostics server", servers.diagnostics))
        self._servers.append(("discovery server", servers.xds))

    def __call__(self) -> Mapping[int, str]:
        """Returns the ports that are taken by now, each with what listens there."""
        return self._others | {server.bound: name for name, server in self._servers if server.bound}


def certificate(settings: Settings, clock: Clock, *, makes: bool = True) -> CertificateWatch:
    """Watches the certificate of all servers: the one that is given, or one of the control plane's own.

    Unless this process `makes` files, another one does, and has made them.
    """
    general = settings.general
    chain, key = general.tls_cert_file, general.tls_key_file
    if not makes:
        files = server_certificate.written(chain, key, general.tls_ca_file, settings.work_dir)
        return CertificateWatch(lambda: files, clock)
    if chain and key:
        given = functools.partial(server_certificate.given, chain, key, general.tls_ca_file, settings.work_dir)
        return CertificateWatch(given, clock)
    hosts = (*server_certificate.own_names(settings.dp_server.interface), *general.hostnames)
    return CertificateWatch(lambda: server_certificate.ensure(settings.work_dir, hosts, clock.now()), clock)


def api(
    settings: ApiServerSection,
    app: Any,
    identity: ServerIdentity,
    audit: Audit,
    clock: Clock,
    peers: PeerUsers | None,
    listen: sockets.Listen,
) -> dict[str, HttpServer]:
    """Returns the API over HTTP, HTTPS or both."""
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
            app,
            http.interface,
            http.port,
            setting=HTTP_PORT,
            limits=_connections(settings.limits),
            peers=peers,
            listen=listen,
        )
    if https.enabled:
        found[HTTPS] = HttpServer(
            app,
            https.interface,
            https.port,
            setting=HTTPS_PORT,
            tls=identity,
            clients=_clients(settings, audit, clock),
            limits=_connections(settings.limits),
            peers=peers,
            listen=listen,
        )
    return found


def _clients(settings: ApiServerSection, audit: Audit, clock: Clock) -> ClientCertificates | None:
    """Returns the settings for client certificates of the API; None if there is no CA to verify them by."""
    trusted = client_cas.read(settings.https.tls_ca_file, settings.auth.client_certs_dir)
    refusals = Refusals(audit, clock)

    def refused(address: str, reason: str) -> None:
        refusals.record(address, server=HTTPS, reason=reason)

    return ClientCertificates(trusted, settings.https.require_client_cert, refused, clock) if trusted else None


def data_plane(settings: DpServerSection, app: Any, identity: ServerIdentity, listen: sockets.Listen) -> HttpServer:
    """Builds the server that proxies ask for their bootstrap."""
    return HttpServer(
        app,
        settings.interface,
        settings.port,
        tls=identity,
        setting=DP_PORT,
        limits=_connections(settings.limits),
        listen=listen,
    )


def allowed_workloads(settings: DpServerSection) -> tuple[Destination, ...]:
    """Reads where administrators allow inbounds to lead to.

    Raises:
        Misconfigured: what is set is no address and no network.
    """
    return _destinations(workloads.SETTING, settings.allowed_workloads)


def dataplane_networks(settings: DpServerSection) -> tuple[Destination, ...]:
    """Reads where Dataplanes may be called; see `allowed_workloads`."""
    return _destinations(workloads.NETWORKS, settings.dataplane_networks)


def _destinations(setting: str, written: Iterable[str]) -> tuple[Destination, ...]:
    try:
        return tuple(map(Destination.parse, written))
    except ValueError as error:
        raise Misconfigured(f"{setting}: {error}") from None


def probe_defaults(settings: HdsSection) -> ProbeDefaults:
    """Returns how proxies ask workloads, if a probe does not say otherwise, and how often they report."""
    checks = settings.check_defaults
    return ProbeDefaults(
        report=settings.interval.delta,
        interval=checks.interval.delta,
        timeout=checks.timeout.delta,
        unhealthy_threshold=checks.unhealthy_threshold,
        healthy_threshold=checks.healthy_threshold,
    )


def diagnostics(settings: DiagnosticsSection, app: Any, listen: sockets.Listen = sockets.listening) -> HttpServer:
    """Health and metrics."""
    return HttpServer(
        app,
        settings.server_interface,
        settings.server_port,
        setting=DIAGNOSTICS_PORT,
        listen=listen,
    )


def limits(settings: LimitsSection) -> RequestLimits:
    """Returns the request rate limits of an HTTP server."""
    return RequestLimits(Rate(settings.requests_per_second, settings.burst), settings.concurrent)


def stream_limits(settings: XdsServerSection) -> StreamLimits:
    """Returns the limits of streams, and of requests on them, of the discovery server."""
    return StreamLimits(
        Rate(settings.streams_per_second, settings.stream_burst),
        Rate(settings.requests_per_second, settings.request_burst),
        settings.pending_streams,
    )


def front_limits(settings: XdsServerSection) -> FrontLimits:
    """Returns the limits of connections to the discovery server."""
    pending = settings.pending_streams
    # Each of an Envoy's threads that reports callers has a connection of its own.
    connections = settings.concurrent_streams * (3 if settings.observed_traffic else 1)
    return FrontLimits(of_address=pending, unknown=4 * pending, total=connections + 4 * pending)


def access(settings: AccessSection) -> Access:
    """Returns the access rules of the API."""
    grants = {
        name: Grant.of(section.users, section.groups)
        for name, section in ((name, getattr(settings.static, name)) for name in type(settings.static).model_fields)
    }
    return Access(**grants, anonymous_reads=settings.anonymous_reads)


def _connections(settings: LimitsSection) -> ConnectionLimits:
    return ConnectionLimits(
        per_address=settings.connections,
        total=settings.total_connections,
        handshake=settings.handshake_timeout.seconds,
        head=settings.head_timeout.seconds,
        idle=settings.idle_timeout.seconds,
        send=settings.send_timeout.seconds,
        head_bytes=settings.head_bytes,
        url_bytes=settings.url_bytes,
    )
