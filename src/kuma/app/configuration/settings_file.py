"""Reads settings: defaults, then a YAML file, then the environment. File and environment take the same."""

from __future__ import annotations

import difflib
import functools
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog
import yaml
from pydantic import ValidationError
from pydantic.alias_generators import to_camel

from kuma.app.configuration import setting_names
from kuma.app.configuration.settings import Settings
from kuma.app.configuration.store_settings import PostgresSection
from kuma.base.errors import InvalidResource, Misconfigured
from kuma.base.values import addresses
from kuma.resources import codec
from kuma.resources.duration import Duration

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Given:
    """Settings of one source, by the variables that would set them."""

    values: dict[str, tuple[Any, str]] = field(default_factory=dict)
    """Values by variable, with the name that the user has written."""
    passed_over: list[str] = field(default_factory=list)
    asking_for_tls: list[str] = field(default_factory=list)
    """Those of them that ask for TLS where there is none."""
    wrong: list[str] = field(default_factory=list)

    def pass_over(self, variable: str, value: Any, written: str) -> None:
        """Notes a setting that has no effect here."""
        self.passed_over.append(written)
        if variable.startswith(setting_names.DIAGNOSTICS_TLS) and str(value).lower() not in ("", "false"):
            self.asking_for_tls.append(written)


def load(file: Path | None = None, environment: Mapping[str, str] = os.environ) -> Settings:
    """Settings from defaults, then `file`, then the environment.

    What the original has and has no effect here is told, or refused if `general.strict`.

    Raises:
        Misconfigured: settings are unknown or have values that they cannot have; names all of them.
    """
    given = [_meant(_in_file(file), f" in {file}")] if file else []
    given.append(_meant(((name, value, name) for name, value in environment.items()), ""))
    known, data, names = dict(setting_names.variables()), dict[str, Any](), dict[tuple[str, ...], str]()
    for source in given:
        for variable, (value, written) in source.values.items():
            listed = isinstance(value, str) and known[variable][-1] in setting_names.LISTS
            _set(data, known[variable], _listed(value) if listed else value)
            names[known[variable]] = written
    wrong = [complaint for source in given for complaint in source.wrong]
    if wrong:
        raise Misconfigured("; ".join(wrong))
    try:
        settings = Settings.model_validate(data)
    except ValidationError as error:
        raise Misconfigured("; ".join(_complaint(details, names) for details in error.errors())) from None
    _check(settings)
    _check_diagnostics(settings, [name for source in given for name in source.asking_for_tls])
    _tell([name for source in given for name in _without_effect(source, settings)], settings)
    return settings


def _in_file(file: Path) -> Iterator[tuple[str, Any, str]]:
    """Every value in a file, with the variable that would set it, and its name in the file."""
    return _leaves(_read(file), ())


def _leaves(data: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[tuple[str, Any, str]]:
    for name, value in data.items():
        here = (*path, str(name))
        if isinstance(value, Mapping):
            yield from _leaves(value, here)
        elif value is not None:
            variable = "KUMA_" + "_".join(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", part).upper() for part in here)
            yield setting_names.SHORTER.get(variable, variable), value, ".".join(here)


def _meant(given: Iterator[tuple[str, Any, str]], where: str) -> _Given:
    """Sorts what is given into what sets something, what goes without saying, what has no effect, and what is wrong.

    A choice of what is not available is all that is told: what depends on it is no mistake of its own.
    """
    found, known = _Given(), dict(setting_names.variables())
    for variable, value, written in sorted(given, key=lambda one: one[0] not in setting_names.CHOICES):
        name = setting_names.ALIASES.get(variable, variable)
        if variable in setting_names.CHOICES and str(value) not in setting_names.CHOICES[variable]:
            only = " or ".join(name for name in setting_names.CHOICES[variable] if name != "memory")
            raise Misconfigured(f"{written}{where}: {value} is not available here, only {only}")
        if value == "" and name != variable:
            continue
        if variable.endswith(setting_names.CIPHERS) and value:
            found.wrong.append(
                f"{written}{where} cannot be chosen here: the servers have TLS 1.2 and 1.3 with AEAD suites"
            )
        elif variable.endswith(setting_names.CIPHERS):
            continue
        elif variable in setting_names.FIXED:
            remedy = setting_names.REMEDIES.get(variable, "")
            found.wrong += _differs(value, written + where, setting_names.FIXED[variable], remedy)
        elif name in known:
            _take(found, name, value, written + where)
        elif setting_names.passed_over(variable):
            found.pass_over(variable, value, written)
        elif where or (variable.startswith("KUMA_") and not variable.startswith(setting_names.OTHERS)):
            found.wrong.append(_unknown(variable, written, where, known))
    return found


def _take(found: _Given, name: str, value: Any, written: str) -> None:
    before = found.values.get(name)
    if before is not None and before[0] != value:
        raise Misconfigured(f"{written} and {before[1]} differ, but are one setting here")
    found.values[name] = (value, written)


def _differs(value: Any, written: str, possible: tuple[str, ...], remedy: str) -> Iterator[str]:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if text not in possible:
        only = " or ".join(f'"{one}"' for one in possible)
        yield f'{written} cannot be "{text}" here, only {only}' + (f": {remedy}" if remedy else "")


def _unknown(variable: str, written: str, where: str, known: Mapping[str, tuple[str, ...]]) -> str:
    close = difflib.get_close_matches(variable, known, n=1, cutoff=0.85)
    meant = ".".join(map(to_camel, known[close[0]])) if close and where else (close or [""])[0]
    hint = f"; did you mean {meant}?" if close else ""
    return f"unknown setting {written}{where}{hint}" if where else f"environment variable {written} sets nothing{hint}"


def _without_effect(given: _Given, settings: Settings) -> Iterator[str]:
    yield from given.passed_over
    if settings.store.type == "sqlite":
        yield from (
            written for name, (_, written) in given.values.items() if name.startswith(setting_names.OF_POSTGRES)
        )


def _check_diagnostics(settings: Settings, asking_for_tls: list[str]) -> None:
    """Refuses plaintext where TLS is asked for; on the loopback nobody else reads it."""
    interface = settings.diagnostics.server_interface
    if asking_for_tls and not (interface == "localhost" or addresses.is_loopback(interface)):
        raise Misconfigured(
            f"{', '.join(sorted(asking_for_tls))}: diagnostics are served without TLS, and at {interface} others would "
            "read them on their way. Leave diagnostics.serverInterface (KUMA_DIAGNOSTICS_SERVER_INTERFACE) at "
            "127.0.0.1 and put a server with TLS before it, or remove these settings"
        )


def _tell(passed_over: list[str], settings: Settings) -> None:
    if not passed_over:
        return
    names = ", ".join(sorted(passed_over))
    if settings.general.strict:
        raise Misconfigured(f"these settings have no effect here, and general.strict is set: {names}")
    log.warning("settings of the original that have no effect here", settings=names)


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _check(settings: Settings) -> None:
    for _, path in setting_names.variables():
        value = functools.reduce(getattr, path, settings)
        if isinstance(value, Duration):
            try:
                value.delta  # noqa: B018 - raises
            except ValueError as error:
                raise Misconfigured(f"{'.'.join(map(to_camel, path))} {error}") from None
    _check_postgres(settings.store.postgres)
    general = settings.general
    if bool(general.tls_cert_file) != bool(general.tls_key_file) or (general.tls_ca_file and not general.tls_cert_file):
        raise Misconfigured(
            "general.tlsCertFile and general.tlsKeyFile are given together (KUMA_GENERAL_TLS_CERT_FILE and "
            "KUMA_GENERAL_TLS_KEY_FILE, or those of the API server or the data plane server), or not at all"
        )
    if (settings.environment == "kubernetes") != (settings.store.type == "kubernetes"):
        raise Misconfigured(
            "environment and store.type are both kubernetes, or neither is (KUMA_ENVIRONMENT and KUMA_STORE_TYPE)"
        )
    _check_workers(settings)
    _check_authentication(settings)
    api = settings.api_server
    if api.https.require_client_cert and not (api.https.tls_ca_file or api.auth.client_certs_dir):
        raise Misconfigured(
            "apiServer.https.requireClientCert needs apiServer.https.tlsCaFile or apiServer.auth.clientCertsDir, "
            "by which client certificates are verified"
        )


def with_workers(settings: Settings, count: int) -> Settings:
    """Returns settings with another number of workers.

    Raises:
        Misconfigured: they cannot have so many.
    """
    found = settings.model_copy(update={"general": settings.general.model_copy(update={"workers": count})})
    _check_workers(found)
    return found


def _check_workers(settings: Settings) -> None:
    """See that several processes can use the store at once.

    Raises:
        Misconfigured: they cannot.
    """
    if settings.general.workers == 1 or settings.store.type == "postgres":
        return
    remedy = (
        "on Kubernetes replicas share the work: set replicas of the Deployment"
        if settings.store.type == "kubernetes"
        else "a SQLite file is one process's alone: set store.type (KUMA_STORE_TYPE) to postgres"
    )
    raise Misconfigured(f"general.workers (KUMA_GENERAL_WORKERS, --workers) can only be 1 here: {remedy}")


_AUTHENTICATION = {"universal": "dpToken", "kubernetes": "serviceAccountToken"}


def _check_authentication(settings: Settings) -> None:
    chosen, only = settings.dp_server.authn.dp_proxy.type, _AUTHENTICATION[settings.environment]
    if chosen not in ("", only):
        raise Misconfigured(
            "dpServer.authn.dpProxy.type (KUMA_DP_SERVER_AUTHN_DP_PROXY_TYPE) "
            f'cannot be "{chosen}" here, only "{only}": {setting_names.TOKENS}'
        )


def _check_postgres(postgres: PostgresSection) -> None:
    tls = postgres.tls
    if bool(tls.cert_path) != bool(tls.key_path):
        raise Misconfigured("store.postgres.tls.certPath and store.postgres.tls.keyPath are given together")
    if postgres.max_open_connections == 1:
        raise Misconfigured(
            "store.postgres.maxOpenConnections is 2 at least, or 0 for any number: one of them is always listening"
        )
    if postgres.max_open_connections and postgres.min_open_connections > postgres.max_open_connections:
        raise Misconfigured("store.postgres.minOpenConnections is more than store.postgres.maxOpenConnections")


def _read(file: Path) -> dict[str, Any]:
    try:
        found = list(codec.documents(file.read_text()))
    except OSError as error:
        raise Misconfigured(f"cannot read the configuration file {file}: {error.strerror}") from None
    except (InvalidResource, UnicodeDecodeError, yaml.YAMLError) as error:
        raise Misconfigured(f"the configuration file {file} {error}") from None
    return dict(found[0]) if found else {}


def _set(data: dict[str, Any], path: tuple[str, ...], value: object) -> None:
    *parents, last = path
    for parent in parents:
        below = data.get(parent)
        data[parent] = data = dict(below) if isinstance(below, Mapping) else {}
    data[last] = value


def _complaint(details: Any, names: Mapping[tuple[str, ...], str]) -> str:
    location = tuple(str(part) for part in details["loc"])
    snake = tuple(re.sub(r"(?<!^)(?=[A-Z])", "_", part).lower() for part in location)
    return f"{names.get(snake) or '.'.join(location)}: {details['msg'].lower()}"
