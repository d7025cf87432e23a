"""Takes the options and variables of the original's `kuma-dp` that ask for nothing here, and refuses unsafe ones.

The units and tutorials of its users name them. What asks for something that is not done is told, with what to do
instead.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from kuma.base.errors import Misconfigured

_NO_DNS = "services have no host names: they are called at the ports of the Dataplane's outbounds"
_NO_ROTATION = "rotate the file by other means, such as logrotate"


class Option(NamedTuple):
    """One option of the original: values that ask for nothing, what others mean here, and whether they are refused."""

    idle: tuple[str, ...]
    meaning: str
    refused: bool = False
    is_flag: bool = False


OPTIONS: Mapping[str, Option] = {
    "--dns-enabled": Option(("false",), _NO_DNS, is_flag=True),
    "--dns-coredns-port": Option((), _NO_DNS),
    "--dns-coredns-empty-port": Option((), _NO_DNS),
    "--dns-coredns-path": Option((), _NO_DNS),
    "--dns-coredns-binary-path": Option((), _NO_DNS),
    "--dns-coredns-config-template-path": Option((), _NO_DNS),
    "--dns-envoy-port": Option((), _NO_DNS),
    "--dns-prometheus-port": Option((), _NO_DNS),
    "--dns-server-config-dir": Option((), _NO_DNS),
    "--dns-enable-logging": Option(("false",), _NO_DNS, is_flag=True),
    "--proxy-type": Option(
        ("dataplane",), "there is one zone, without ingress and egress: use dataplane", refused=True
    ),
    "--config-dir": Option((), "nothing is written to a directory: Envoy's configuration stays in memory"),
    "--opa-enabled": Option(("false",), "there is no OPA agent here", refused=True, is_flag=True),
    "--skip-verify": Option(
        ("false",),
        "the control plane is always verified, because a token is sent there: give its CA with --ca-cert-file",
        refused=True,
        is_flag=True,
    ),
    "--log-max-retained-files": Option((), _NO_ROTATION),
    "--log-max-size": Option((), _NO_ROTATION),
    "--log-max-age": Option((), _NO_ROTATION),
}
VARIABLES: Mapping[str, str] = {
    "KUMA_DATAPLANE_PROXY_TYPE": "--proxy-type",
    "KUMA_DATAPLANE_RUNTIME_CONFIG_DIR": "--config-dir",
    "KUMA_DNS_ENABLED": "--dns-enabled",
    "KUMA_DNS_ENABLE_LOGGING": "--dns-enable-logging",
}
"""Variables that are judged as the options that they stand for."""
_REMEDIES: Mapping[str, str] = {
    "KUMA_CONTROL_PLANE_API_SERVER_URL": "KUMA_CONTROL_PLANE_URL says where the data plane server is, at port 5678",
    "KUMA_CONTROL_PLANE_RETRY_": "a control plane that is down is waited for",
    "KUMA_DATAPLANE_ADMIN_PORT": "the port stands in the Dataplane: networking.admin.port",
    "KUMA_DATAPLANE_RUNTIME_METRICS_": "metrics are served without TLS, or with mutual TLS of the mesh",
    "KUMA_DNS_": _NO_DNS,
}
"""What to do instead of variables that have no effect, by how they begin."""
LOG_FILE = "--log-output-path"
CA_VARIABLE, CA_FILE_VARIABLE = "KUMA_CONTROL_PLANE_CA_CERT", "KUMA_CONTROL_PLANE_CA_CERT_FILE"
CA_OPTION = "--ca-cert-file"


class Taken(NamedTuple):
    """Result of taking options: the arguments that are left, where to log, and warnings."""

    arguments: tuple[str, ...]
    log_file: str
    warnings: tuple[str, ...]


def take(arguments: Sequence[str]) -> Taken:
    """Take the original's options out of the arguments.

    Raises:
        Misconfigured: one asks for what would be unsafe to pass over; says what to do instead.
    """
    rest: list[str] = []
    warnings: list[str] = []
    log_file, left = "", list(arguments)
    while left:
        argument = left.pop(0)
        name, equals, value = argument.partition("=")
        if name != LOG_FILE and name not in OPTIONS:
            rest.append(argument)
            continue
        option = OPTIONS.get(name)
        if not equals:
            value = "true" if option is not None and option.is_flag else (left.pop(0) if left else "")
        if option is None:
            log_file = value
        else:
            warnings += _judged(name, value, option)
    return Taken(tuple(rest), log_file, tuple(warnings))


def _judged(name: str, value: str, option: Option) -> Iterator[str]:
    if value in option.idle:
        return
    if option.refused:
        raise Misconfigured(f"{name}={value} is not done here: {option.meaning}")
    yield f"{name} has no effect here: {option.meaning}"


def unread(environment: Mapping[str, str], known: frozenset[str]) -> Iterator[str]:
    """Yields a warning for each variable for kuma-dp that no option of it reads; `known` are those that one reads.

    Raises:
        Misconfigured: one asks for what would be unsafe to pass over; says what to do instead.
    """
    ours = (name for name in environment if name.startswith(("KUMA_DATAPLANE_", "KUMA_CONTROL_PLANE_", "KUMA_DNS_")))
    for name in sorted(name for name in ours if name not in known and name != CA_VARIABLE):
        if name in VARIABLES:
            yield from _judged(name, environment[name].lower(), OPTIONS[VARIABLES[name]])
        else:
            remedy = next((remedy for begin, remedy in _REMEDIES.items() if name.startswith(begin)), "")
            yield f"the environment variable {name} has no effect here{remedy and ': '}{remedy}"


def ca_from_environment(arguments: Sequence[str], environment: Mapping[str, str]) -> Mapping[str, str]:
    """Returns the variable that names the CA, if the CA itself stands in the environment and no file is given.

    It is put into anonymous memory, which is read like a file.
    """
    given = any(argument.partition("=")[0] == CA_OPTION for argument in arguments)
    if not environment.get(CA_VARIABLE) or environment.get(CA_FILE_VARIABLE) or given:
        return {}
    descriptor = os.memfd_create("ca.crt")
    os.write(descriptor, environment[CA_VARIABLE].encode())
    return {CA_FILE_VARIABLE: f"/dev/fd/{descriptor}"}


def log_to(path: str) -> None:
    """Append everything that this program and its Envoy print to a file, which its owner alone reads.

    Raises:
        Misconfigured: it cannot be written.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError as error:
        raise Misconfigured(f"{LOG_FILE} {path}: {error.strerror}") from None
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    os.close(descriptor)
