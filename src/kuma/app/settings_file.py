"""Reads the settings: a YAML file under environment variables, checked as a whole."""

from __future__ import annotations

import difflib
import functools
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic.alias_generators import to_camel

from kuma.app.settings import Section, Settings
from kuma.base.errors import InvalidResource, Misconfigured
from kuma.resources import codec
from kuma.resources.duration import Duration

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
        value = functools.reduce(getattr, path, settings)
        if isinstance(value, Duration):
            try:
                value.delta  # noqa: B018 - raises
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
