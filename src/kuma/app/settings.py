"""Settings of the control plane: a YAML file under environment variables, frozen once read."""

from __future__ import annotations

import difflib
import functools
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PositiveFloat, PositiveInt, ValidationError
from pydantic.alias_generators import to_camel

from kuma.base.errors import InvalidResource, Misconfigured
from kuma.base.values import durations
from kuma.resources import codec

Port = Annotated[int, Field(ge=0, le=65535)]
MaybePath = Annotated[Path | None, BeforeValidator(lambda given: given or None)]
"""Empty is none, as it is said of these settings, and not the current directory."""


class Section(BaseModel):
    """Base of all sections: camelCase in the file, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, validate_by_name=True)


class GeneralSection(Section):
    """Settings of the whole process."""

    work_dir: Path = Field(Path("~/.kuma"), description="Directory of everything that the control plane keeps.")
    tls_cert_file: MaybePath = Field(
        None, description="Certificate chain of the control plane's servers, PEM. Made in the work directory if empty."
    )
    tls_key_file: MaybePath = Field(None, description="Key of that certificate, PEM.")
    tls_ca_file: MaybePath = Field(
        None, description="CA by which proxies verify that certificate, PEM. Needed with tlsCertFile."
    )
    hostnames: tuple[str, ...] = Field(
        (), description="Further names and addresses for the certificate that is made; separated by commas."
    )
    audit_file: MaybePath = Field(
        None, description="Where changes and issued certificates are recorded. `audit.jsonl` in the work directory."
    )
    strict: bool = Field(
        False, description="Refuse what has no effect here, such as a Mesh's tracing, instead of a warning."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is logged.")
    log_format: Literal["console", "json"] = Field("console", description="How log lines are written.")


class StoreSection(Section):
    """Settings of the store."""

    type: Literal["sqlite"] = Field("sqlite", description="Kind of store.")
    sqlite_path: MaybePath = Field(None, description="Database file. `kuma.db` in the work directory if empty.")
    encryption_key_file: MaybePath = Field(
        None, description="Key that seals Secrets: 32 bytes in base64, mode 0600. Beside the database if empty."
    )


class LimitsSection(Section):
    """Limits of one client address and of one connection."""

    requests_per_second: PositiveFloat = Field(200, description="Requests a second in the long run; more are 429.")
    burst: PositiveInt = Field(400, description="Requests at once that count as one burst.")
    concurrent: PositiveInt = Field(64, description="Requests that are being answered at the same time.")
    connections: PositiveInt = Field(128, description="Connections of one address at once; more are 429, or closed.")
    total_connections: PositiveInt = Field(1000, description="Connections of all clients at once; more are 503.")
    handshake_timeout: str = Field("10s", description="How long a TLS handshake may take.")
    head_timeout: str = Field("10s", description="How long a request's head may take; more is 408.")
    idle_timeout: str = Field("15s", description="How long a connection may stay open without a request.")
    send_timeout: str = Field("30s", description="How long a client may take to read on; more ends its connection.")
    head_bytes: PositiveInt = Field(16384, description="Bytes of a request's URL and headers together; more are 431.")
    url_bytes: PositiveInt = Field(8192, description="Bytes of a request's URL; more are 414.")


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


class AuthnTokensSection(Section):
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

    users: tuple[str, ...] = Field(("mesh-system:admin",), description="Users who may; separated by commas.")
    groups: tuple[str, ...] = Field(("mesh-system:admin",), description="Groups that may; separated by commas.")


class MembersSection(GrantSection):
    """Users and groups who may do something that every known user may do by default."""

    groups: tuple[str, ...] = Field(
        ("mesh-system:admin", "mesh-system:authenticated"), description="Groups that may; separated by commas."
    )


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


class DpServerSection(Section):
    """The bootstrap server, over HTTPS."""

    interface: str = Field("127.0.0.1", description="Address to listen on; also that of the discovery server.")
    port: Port = Field(5678, description="Port to listen on.")
    allowed_workloads: tuple[str, ...] = Field(
        (),
        description="Where inbounds may lead to beyond their own machine: addresses or networks, each with a port or "
        "for all: 10.1.0.0/16, 10.0.0.7:8080.",
    )
    limits: LimitsSection = LimitsSection()


class XdsServerSection(Section):
    """The discovery server (ADS), over TLS."""

    port: Port = Field(5677, description="Port to listen on.")
    dataplane_deregistration_delay: str = Field(
        "10s", description="How long after its proxy has left a Dataplane that it brought along is removed."
    )
    transition_patience: str = Field(
        "30s", description="How long a staged change of mutual TLS waits for a proxy that does not acknowledge a step."
    )
    transition_absence: str = Field(
        "15s", description="How long it waits for a proxy that has lost its connection; they reconnect within seconds."
    )
    connection_drain: str = Field(
        "10s",
        description="How long Envoys may take to end the connections that a change leaves behind: longer than their "
        "--drain-time-s, which kuma-dp sets to 5 seconds.",
    )
    streams_per_second: PositiveFloat = Field(1, description="Streams a second that one proxy may open.")
    stream_burst: PositiveInt = Field(20, description="Streams that one proxy may open at once.")
    requests_per_second: PositiveFloat = Field(100, description="Requests a second on one stream; more end it.")
    request_burst: PositiveInt = Field(5000, description="Requests on one stream that count as one burst.")
    pending_streams: PositiveInt = Field(
        500, description="Streams of one address that have not said yet whose they are; more are refused."
    )
    concurrent_streams: PositiveInt = Field(10000, description="Streams at once, of all proxies; more are refused.")
    send_timeout: str = Field("30s", description="How long a proxy may take to read a response; more ends its stream.")

    @property
    def send_seconds(self) -> float:
        return durations.parse_duration(self.send_timeout).total_seconds()

    @property
    def patience_seconds(self) -> float:
        return durations.parse_duration(self.transition_patience).total_seconds()

    @property
    def drain_seconds(self) -> float:
        return durations.parse_duration(self.connection_drain).total_seconds()

    @property
    def absence_seconds(self) -> float:
        return durations.parse_duration(self.transition_absence).total_seconds()

    @property
    def deregistration_seconds(self) -> float:
        return durations.parse_duration(self.dataplane_deregistration_delay).total_seconds()


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


class Settings(Section):
    """All settings."""

    general: GeneralSection = GeneralSection()
    store: StoreSection = StoreSection()
    api_server: ApiServerSection = ApiServerSection()
    access: AccessSection = AccessSection()
    dp_server: DpServerSection = DpServerSection()
    xds_server: XdsServerSection = XdsServerSection()
    diagnostics: DiagnosticsSection = DiagnosticsSection()
    defaults: DefaultsSection = DefaultsSection()

    @property
    def work_dir(self) -> Path:
        return self.general.work_dir.expanduser()

    @property
    def audit_file(self) -> Path:
        return (self.general.audit_file or self.work_dir / "audit.jsonl").expanduser()

    @property
    def database(self) -> Path:
        return (self.store.sqlite_path or self.work_dir / "kuma.db").expanduser()


_SHORTER = {"KUMA_XDS_SERVER_DATAPLANE_DEREGISTRATION_DELAY": "KUMA_XDS_DATAPLANE_DEREGISTRATION_DELAY"}
_ALIASES = {
    "KUMA_API_SERVER_HTTPS_TLS_CERT_FILE": "KUMA_GENERAL_TLS_CERT_FILE",
    "KUMA_API_SERVER_HTTPS_TLS_KEY_FILE": "KUMA_GENERAL_TLS_KEY_FILE",
    "KUMA_DP_SERVER_TLS_CERT_FILE": "KUMA_GENERAL_TLS_CERT_FILE",
    "KUMA_DP_SERVER_TLS_KEY_FILE": "KUMA_GENERAL_TLS_KEY_FILE",
    "KUMA_DP_SERVER_READ_HEADER_TIMEOUT": "KUMA_DP_SERVER_LIMITS_HEAD_TIMEOUT",
}
"""Names of the original for what has another name here, or is one setting: all servers have the same certificate."""
FIXED = {
    "KUMA_MODE": ("zone", "standalone"),
    "KUMA_ENVIRONMENT": ("universal",),
    "KUMA_API_SERVER_BASE_PATH": ("/", ""),
    "KUMA_API_SERVER_READ_ONLY": ("false",),
    "KUMA_API_SERVER_AUTHN_TYPE": ("tokens",),
    "KUMA_ACCESS_TYPE": ("static",),
    "KUMA_DP_SERVER_AUTHN_DP_PROXY_TYPE": ("dpToken",),
    "KUMA_DP_SERVER_AUTH_TYPE": ("dpToken",),
    "KUMA_GENERAL_TLS_MIN_VERSION": ("TLSv1_2",),
    "KUMA_API_SERVER_HTTPS_TLS_MIN_VERSION": ("TLSv1_2",),
    "KUMA_DP_SERVER_TLS_MIN_VERSION": ("TLSv1_2",),
    "KUMA_API_SERVER_AUTHN_TOKENS_ENABLE_ISSUER": ("true",),
    "KUMA_API_SERVER_AUTHN_TOKENS_VALIDATOR_USE_SECRETS": ("true",),
    "KUMA_API_SERVER_GUI_ENABLED": ("false",),
    "KUMA_DP_SERVER_AUTHN_DP_PROXY_DP_TOKEN_ENABLE_ISSUER": ("true",),
    "KUMA_DP_SERVER_AUTHN_DP_PROXY_DP_TOKEN_VALIDATOR_USE_SECRETS": ("true",),
    "KUMA_DP_SERVER_AUTHN_ENABLE_RELOADABLE_TOKENS": ("false",),
    "KUMA_DP_SERVER_HDS_ENABLED": ("false",),
    "KUMA_DIAGNOSTICS_DEBUG_ENDPOINTS": ("false",),
    "KUMA_DIAGNOSTICS_TLS_ENABLED": ("false",),
    "KUMA_DEFAULTS_CREATE_MESH_ROUTING_RESOURCES": ("false",),
    "KUMA_EXPERIMENTAL_DELTA_XDS": ("true",),
    "KUMA_REPORTS_ENABLED": ("false",),
}
"""Variables of the original with the values that this control plane always has: they may be given, no others."""
_OTHERS = ("KUMA_CONTROL_PLANE_", "KUMA_DATAPLANE_", "KUMA_DP_ENVOY_")
"""Variables of kuma-dp, which may stand in the same environment."""


_LISTS = ("hostnames", "users", "groups", "localhost_admin_users", "localhost_admin_groups", "allowed_workloads")


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def variables(section: type[Section] = Settings, path: tuple[str, ...] = ()) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every environment variable with the path of the setting that it sets."""
    for name, info in section.model_fields.items():
        here = (*path, name)
        if isinstance(info.annotation, type) and issubclass(info.annotation, Section):
            yield from variables(info.annotation, here)
        else:
            variable = "KUMA_" + "_".join(here).upper()
            yield _SHORTER.get(variable, variable), here


def load(file: Path | None = None, environment: Mapping[str, str] = os.environ) -> Settings:
    """Settings from defaults, then `file`, then the environment.

    Raises:
        Misconfigured: a setting is unknown or has a value that it cannot have; names it.
    """
    data = _read(file) if file else {}
    names: dict[tuple[str, ...], str] = {}
    known = dict(variables())
    for variable, value in _meant(environment).items():
        if variable in known:
            _set(data, known[variable], _listed(value) if known[variable][-1] in _LISTS else value)
            names[known[variable]] = variable
        elif variable.startswith("KUMA_") and not variable.startswith(_OTHERS):
            close = difflib.get_close_matches(variable, known, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise Misconfigured(f"environment variable {variable} sets nothing{hint}")
    try:
        settings = Settings.model_validate(data)
    except ValidationError as error:
        raise Misconfigured("; ".join(_complaint(details, names, file) for details in error.errors())) from None
    _check(settings)
    return settings


_DURATIONS = ("delay", "patience", "absence", "timeout")
"""Last words of the settings that are durations."""


def _meant(environment: Mapping[str, str]) -> Mapping[str, str]:
    """The environment with the original's names replaced by ours, and without what goes without saying."""
    found: dict[str, str] = {}
    for variable, value in environment.items():
        if variable in FIXED:
            if value not in FIXED[variable]:
                only = " or ".join(f'"{possible}"' for possible in FIXED[variable])
                raise Misconfigured(f'{variable} cannot be "{value}" here, only {only}')
            continue
        name = _ALIASES.get(variable, variable)
        if found.get(name, value) != value or (name != variable and environment.get(name, value) != value):
            raise Misconfigured(f"{variable} and {name} differ, but are one setting here")
        found[name] = value
    return found


def _check(settings: Settings) -> None:
    for _, path in variables():
        if path[-1].endswith(_DURATIONS):
            text = functools.reduce(getattr, path, settings)
            try:
                durations.parse_duration(str(text))
            except ValueError as error:
                raise Misconfigured(f"{'.'.join(map(to_camel, path))} {error}") from None
    general = settings.general
    given = (general.tls_cert_file, general.tls_key_file, general.tls_ca_file)
    if any(given) and not all(given):
        raise Misconfigured("general.tlsCertFile, tlsKeyFile and tlsCaFile are given together or not at all")
    api = settings.api_server
    if api.https.require_client_cert and not (api.https.tls_ca_file or api.auth.client_certs_dir):
        raise Misconfigured(
            "apiServer.https.requireClientCert needs apiServer.https.tlsCaFile or apiServer.auth.clientCertsDir, "
            "by which client certificates are verified"
        )


def _read(file: Path) -> dict[str, Any]:
    try:
        found = list(codec.documents(file.read_text()))
    except OSError as error:
        raise Misconfigured(f"cannot read the configuration file {file}: {error.strerror}") from None
    except (InvalidResource, UnicodeDecodeError, yaml.YAMLError) as error:
        raise Misconfigured(f"the configuration file {file} {error}") from None
    return dict(found[0]) if found else {}


def _set(data: dict[str, Any], path: tuple[str, ...], value: object) -> None:
    *parents, last = (to_camel(part) for part in path)
    for parent in parents:
        below = data.get(parent)
        data[parent] = data = dict(below) if isinstance(below, Mapping) else {}
    data[last] = value


def _complaint(details: Any, names: Mapping[tuple[str, ...], str], file: Path | None) -> str:
    location = tuple(str(part) for part in details["loc"])
    snake = tuple(re.sub(r"(?<!^)(?=[A-Z])", "_", part).lower() for part in location)
    where = names.get(snake) or f"{'.'.join(location)} in {file}"
    if details["type"] == "extra_forbidden":
        return f"unknown setting {'.'.join(location)} in {file}"
    return f"{where}: {details['msg'].lower()}"
