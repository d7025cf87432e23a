"""Settings of the control plane: a YAML file under environment variables, frozen once read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt

from kuma.api.http.access_control import MEMBERS, Grant
from kuma.api.http.connections import ConnectionLimits
from kuma.api.http.request_limits import RequestLimits
from kuma.app.configuration.kubernetes_settings import KubernetesSection
from kuma.app.configuration.section import MaybePath, Port, Section, seconds
from kuma.app.configuration.store_settings import StoreSection
from kuma.resources.duration import Duration
from kuma.xds.envoy.services.health_checks import ProbeDefaults

_REQUESTS, _CONNECTIONS, _ADMINS, _PROBES = RequestLimits(), ConnectionLimits(), Grant(), ProbeDefaults()
"""Where the defaults of limits and grants stand."""


class GeneralSection(Section):
    """Settings of the whole process."""

    work_dir: Path = Field(Path("~/.kuma"), description="Directory of everything that the control plane keeps.")
    tls_cert_file: MaybePath = Field(
        None, description="Certificate chain of the control plane's servers, PEM. Made in the work directory if empty."
    )
    tls_key_file: MaybePath = Field(None, description="Key of that certificate, PEM.")
    tls_ca_file: MaybePath = Field(
        None,
        description="CA by which proxies verify that certificate, PEM. Not needed if the last certificate in "
        "tlsCertFile is self-signed.",
    )
    hostnames: tuple[str, ...] = Field(
        (), description="Further names and addresses for the certificate that is made; separated by commas."
    )
    audit_file: MaybePath = Field(
        None, description="Where changes and issued certificates are recorded. `audit.jsonl` in the work directory."
    )
    dns_cache_ttl: Duration = Field(
        seconds(10),
        alias="dnsCacheTTL",
        description="How long the address of a host name in a Dataplane holds before it is resolved again.",
    )
    strict: bool = Field(
        False, description="Refuse what has no effect here, such as a Mesh's tracing, instead of a warning."
    )
    workers: int = Field(
        1,
        ge=1,
        le=64,
        description="Processes that share the control plane's work and its ports on this machine, each with "
        "a core of its own. More than one needs PostgreSQL.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is logged.")
    log_format: Literal["console", "json"] = Field("console", description="How log lines are written.")


class LimitsSection(Section):
    """Limits of one client address and of one connection."""

    requests_per_second: PositiveFloat = Field(
        _REQUESTS.requests.per_second, description="Requests a second in the long run; more are 429."
    )
    burst: PositiveInt = Field(_REQUESTS.requests.burst, description="Requests at once that count as one burst.")
    concurrent: PositiveInt = Field(
        _REQUESTS.concurrent, description="Requests that are being answered at the same time."
    )
    connections: PositiveInt = Field(
        _CONNECTIONS.per_address, description="Connections of one address at once; more are 429, or closed."
    )
    total_connections: PositiveInt = Field(
        _CONNECTIONS.total, description="Connections of all clients at once; more are 503."
    )
    handshake_timeout: Duration = Field(
        seconds(_CONNECTIONS.handshake), description="How long a TLS handshake may take."
    )
    head_timeout: Duration = Field(
        seconds(_CONNECTIONS.head), description="How long a request's head may take; more is 408."
    )
    idle_timeout: Duration = Field(
        seconds(_CONNECTIONS.idle), description="How long a connection may stay open without a request."
    )
    send_timeout: Duration = Field(
        seconds(_CONNECTIONS.send), description="How long a client may take to read on; more ends its connection."
    )
    head_bytes: PositiveInt = Field(
        _CONNECTIONS.head_bytes, description="Bytes of a request's URL and headers together; more are 431."
    )
    url_bytes: PositiveInt = Field(_CONNECTIONS.url_bytes, description="Bytes of a request's URL; more are 414.")


class HttpSection(Section):
    """The REST API over plain HTTP."""

    enabled: bool = Field(True, description="Whether the API is served over HTTP.")
    interface: str = Field("127.0.0.1", description="Address to listen on.")
    port: Port = Field(5681, description="Port to listen on.")


class HttpsSection(Section):
    """The REST API over HTTPS."""

    enabled: bool = Field(True, description="Whether the API is served over HTTPS.")
    interface: str = Field("127.0.0.1", description="Address to listen on.")
    port: Port = Field(5682, description="Port to listen on.")
    tls_ca_file: MaybePath = Field(
        None, description="CA by which client certificates are verified, PEM. None are asked for if empty."
    )
    require_client_cert: bool = Field(
        False, description="Whether clients without a certificate are refused, 401. They need a token all the same."
    )


class AuthSection(Section):
    """Client certificates: the CAs that verify them, beside the CA file."""

    client_certs_dir: MaybePath = Field(
        None, description="Directory of further such certificates, of CAs or clients: its files `.pem` and `.crt`."
    )


class PublicKeySection(Section):
    """A public key that verifies tokens: itself, or the file that it is in."""

    kid: str = Field(description="What tokens call it.")
    mesh: str = Field("", description="The mesh whose dataplane tokens it verifies.")
    key: str = Field("", description="The key, PEM.")
    key_file: MaybePath = Field(None, description="The file with the key.")


def _of_json(given: object) -> object:
    return json.loads(given) if isinstance(given, str) else given


class ValidatorSection(Section):
    """Keys and bounds that tokens are verified by."""

    use_secrets: bool = Field(True, description="Whether tokens are verified by the signing keys in Secrets.")
    public_keys: Annotated[tuple[PublicKeySection, ...], BeforeValidator(_of_json)] = Field(
        (), description="Public keys of those who sign tokens elsewhere: `kid`, `key` or `keyFile`, and `mesh`."
    )


class TokensSection(Section):
    """Issuing and verifying of tokens."""

    enable_issuer: bool = Field(True, description="Whether the control plane issues tokens.")
    validator: ValidatorSection = ValidatorSection()


class AuthnTokensSection(TokensSection):
    """User tokens."""

    bootstrap_admin_token: bool = Field(
        True, description="Whether the first start makes a token of the administrator, GlobalSecret admin-user-token."
    )


class AuthnSection(Section):
    """Authentication of callers."""

    localhost_is_admin: bool = Field(
        True, description="Whether its own user and root, on this machine, are administrators without a token."
    )
    localhost_admin_users: tuple[str, ...] = Field(
        (), description="Further users of this machine, by name or number, who are, too; `*` is everybody on it."
    )
    localhost_admin_groups: tuple[str, ...] = Field(
        (), description="Groups of this machine whose members are, too. Looked up at the start."
    )
    tokens: AuthnTokensSection = AuthnTokensSection()


class ApiServerSection(Section):
    """The REST API."""

    http: HttpSection = HttpSection()
    https: HttpsSection = HttpsSection()
    auth: AuthSection = AuthSection()
    authn: AuthnSection = AuthnSection()
    limits: LimitsSection = LimitsSection()


class GrantSection(Section):
    """Users and groups who may do something."""

    users: tuple[str, ...] = Field(tuple(sorted(_ADMINS.users)), description="Users who may; separated by commas.")
    groups: tuple[str, ...] = Field(tuple(sorted(_ADMINS.groups)), description="Groups that may; separated by commas.")


class MembersSection(GrantSection):
    """Users and groups who may do something that every known user may do by default."""

    groups: tuple[str, ...] = Field(tuple(sorted(MEMBERS.groups)), description="Groups that may; separated by commas.")


class StaticAccessSection(Section):
    """Static access rules of the API."""

    admin_resources: GrantSection = Field(GrantSection(), description="Secrets and GlobalSecrets.")
    generate_dp_token: GrantSection = GrantSection()
    generate_user_token: GrantSection = GrantSection()
    generate_zone_token: GrantSection = GrantSection()
    control_plane_metadata: GrantSection = GrantSection()
    get_config_dump: MembersSection = MembersSection()
    view_stats: MembersSection = MembersSection()
    view_clusters: MembersSection = MembersSection()


class AccessSection(Section):
    """Access rules of the API."""

    static: StaticAccessSection = StaticAccessSection()
    anonymous_reads: bool = Field(
        False, description="Whether callers without a token, from other machines, may read what is not secret."
    )


class CheckDefaultsSection(Section):
    """Defaults of a `serviceProbe` that does not say it."""

    interval: Duration = Field(seconds(_PROBES.interval.total_seconds()), description="How often a workload is asked.")
    timeout: Duration = Field(seconds(_PROBES.timeout.total_seconds()), description="How long it may take to answer.")
    unhealthy_threshold: PositiveInt = Field(
        _PROBES.unhealthy_threshold, description="Failures in a row after which callers are sent elsewhere."
    )
    healthy_threshold: PositiveInt = Field(
        _PROBES.healthy_threshold, description="Answers in a row after which they are sent there again."
    )


class HdsSection(Section):
    """Health discovery: proxies ask the workloads behind inbounds with a `serviceProbe`, and report."""

    interval: Duration = Field(seconds(_PROBES.report.total_seconds()), description="How often a proxy reports.")
    check_defaults: CheckDefaultsSection = CheckDefaultsSection()


class DpProxyAuthnSection(Section):
    """Authentication of proxies."""

    type: str = Field(
        "",
        description="How proxies are authenticated: `dpToken`, or on Kubernetes `serviceAccountToken`; empty is that.",
    )
    dp_token: TokensSection = TokensSection()


class DpAuthnSection(Section):
    """Authentication of those who connect as proxies."""

    dp_proxy: DpProxyAuthnSection = DpProxyAuthnSection()


class DpServerSection(Section):
    """The bootstrap server, over HTTPS."""

    interface: str = Field("127.0.0.1", description="Address to listen on; also that of the discovery server.")
    port: Port = Field(5678, description="Port to listen on.")
    allowed_workloads: tuple[str, ...] = Field(
        (),
        description="Where inbounds may lead to beyond their own machine: addresses or networks, each with a port or "
        "for all: 10.1.0.0/16, 10.0.0.7:8080.",
    )
    dataplane_networks: tuple[str, ...] = Field(
        (),
        description="Where Dataplanes may be called: addresses or networks, such as 10.1.0.0/16, and the loopback. "
        "Everywhere if empty.",
    )
    limits: LimitsSection = LimitsSection()
    hds: HdsSection = HdsSection()
    authn: DpAuthnSection = DpAuthnSection()


class XdsServerSection(Section):
    """The discovery server (ADS), over TLS."""

    port: Port = Field(5677, description="Port to listen on.")
    dataplane_deregistration_delay: Duration = Field(
        Duration("10s"), description="How long after its proxy has left a Dataplane that it brought along is removed."
    )
    transition_patience: Duration = Field(
        Duration("30s"),
        description="How long a staged change of mutual TLS waits for a proxy that does not acknowledge a step.",
    )
    transition_absence: Duration = Field(
        Duration("15s"),
        description="How long it waits for a proxy that has lost its connection; they reconnect within seconds.",
    )
    connection_drain: Duration = Field(
        Duration("10s"),
        description="How long Envoys may take to end the connections that a change leaves behind: longer than their "
        "--drain-time-s, which kuma-dp sets to 5 seconds.",
    )
    connection_linger: Duration = Field(
        Duration("30s"), description="How long a connection may outlive the certificates it was opened with, at most."
    )
    observed_traffic: bool = Field(
        True, description="Whether proxies report who calls them, which `kumactl inspect traffic` shows."
    )
    streams_per_second: PositiveFloat = Field(1, description="Streams a second that one proxy may open.")
    stream_burst: PositiveInt = Field(20, description="Streams that one proxy may open at once.")
    requests_per_second: PositiveFloat = Field(100, description="Requests a second on one stream; more end it.")
    request_burst: PositiveInt = Field(5000, description="Requests on one stream that count as one burst.")
    pending_streams: PositiveInt = Field(
        500,
        description="Streams and connections of one address that have not shown yet whose they are. More are refused.",
    )
    concurrent_streams: PositiveInt = Field(10000, description="Proxies that are served at once; more are refused.")
    send_timeout: Duration = Field(
        Duration("30s"), description="How long a proxy may take to read a response; more ends its stream."
    )


class DiagnosticsSection(Section):
    """Metrics and health."""

    server_interface: str = Field("127.0.0.1", description="Address to listen on.")
    server_port: Port = Field(5680, description="Port to listen on.")


class DefaultsSection(Section):
    """Resources that are created at the first start."""

    skip_mesh_creation: bool = Field(False, description="Whether the Mesh `default` is left to be created.")
    refuse_weakening: bool = Field(
        False,
        description="Whether what weakens a mesh is refused unless it is asked for. A Mesh may say otherwise by label.",
    )


class RuntimeSection(Section):
    """Settings of what the control plane runs on."""

    kubernetes: KubernetesSection = KubernetesSection()


class ExperimentalSection(Section):
    """What the original calls experimental."""

    sidecar_containers: bool | None = Field(
        None,
        description="Whether sidecars are native sidecar containers, which start before and end after the others. If "
        "nothing is said: on Kubernetes 1.29 and later.",
    )


class Settings(Section):
    """All settings."""

    environment: Literal["universal", "kubernetes"] = Field(
        "universal", description="What the control plane runs on: `universal` or `kubernetes`, with its store."
    )
    runtime: RuntimeSection = RuntimeSection()
    general: GeneralSection = GeneralSection()
    store: StoreSection = StoreSection()
    api_server: ApiServerSection = ApiServerSection()
    access: AccessSection = AccessSection()
    dp_server: DpServerSection = DpServerSection()
    xds_server: XdsServerSection = XdsServerSection()
    diagnostics: DiagnosticsSection = DiagnosticsSection()
    defaults: DefaultsSection = DefaultsSection()
    experimental: ExperimentalSection = ExperimentalSection()

    @property
    def work_dir(self) -> Path:
        return self.general.work_dir.expanduser()

    @property
    def audit_file(self) -> Path:
        return (self.general.audit_file or self.work_dir / "audit.jsonl").expanduser()

    @property
    def database(self) -> Path:
        return (self.store.sqlite_path or self.work_dir / "kuma.db").expanduser()

    @property
    def encryption_key(self) -> Path:
        database = self.database
        return (self.store.encryption_key_file or database.with_name(database.name + ".key")).expanduser()
