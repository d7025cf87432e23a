"""Options of `kuma-dp run`: by which name and environment variable each is given, and what it means."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeAlias

import typer


class AgentLogLevel(StrEnum):
    """Levels of kuma-dp's own log."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    """How lines of the log are written."""

    CONSOLE = "console"
    JSON = "json"


class EnvoyLogLevel(StrEnum):
    """Levels of Envoy's log."""

    TRACE = "trace"
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"
    OFF = "off"


ControlPlaneUrl: TypeAlias = Annotated[
    str, typer.Option(envvar="KUMA_CONTROL_PLANE_URL", help="Where the control plane hands out bootstraps.")
]
CaCertFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        envvar="KUMA_CONTROL_PLANE_CA_CERT_FILE",
        help="CA of the control plane, PEM: ca.crt in its work directory. Without it the system's CAs count.",
    ),
]
DataplaneFile: TypeAlias = Annotated[
    str,
    typer.Option(
        "--dataplane-file",
        "-d",
        envvar="KUMA_DATAPLANE_RUNTIME_RESOURCE_PATH",
        help="Dataplane of this proxy, YAML; `-` is standard input. Registered while the proxy runs.",
    ),
]
DataplaneText: TypeAlias = Annotated[
    str, typer.Option(envvar="KUMA_DATAPLANE_RUNTIME_RESOURCE", help="The Dataplane itself instead of a file.")
]
DataplaneVariables: TypeAlias = Annotated[
    list[str] | None, typer.Option("--dataplane-var", "-v", help="name=value for {{ name }} in the Dataplane.")
]
DataplaneName: TypeAlias = Annotated[
    str, typer.Option(envvar="KUMA_DATAPLANE_NAME", help="Name of a Dataplane that exists already.")
]
DataplaneMesh: TypeAlias = Annotated[str, typer.Option(envvar="KUMA_DATAPLANE_MESH", help="Mesh of that Dataplane.")]
TokenFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        envvar="KUMA_DATAPLANE_RUNTIME_TOKEN_PATH",
        help="File with the token of this proxy. A new one in it is used from the next stream on; "
        "a pipe, such as <(kumactl generate dataplane-token ...), is read once.",
    ),
]
Token: TypeAlias = Annotated[
    str,
    typer.Option(
        envvar="KUMA_DATAPLANE_RUNTIME_TOKEN",
        show_envvar=True,
        help="The token itself. Prefer the file, which wins: arguments can be read in the list of processes.",
    ),
]
BinaryPath: TypeAlias = Annotated[
    Path | None,
    typer.Option(envvar="KUMA_DATAPLANE_RUNTIME_BINARY_PATH", help="Envoy to run instead of the installed one."),
]
Concurrency: TypeAlias = Annotated[
    int, typer.Option(min=1, envvar="KUMA_DATAPLANE_RUNTIME_CONCURRENCY", help="Worker threads of Envoy.")
]
DrainTime: TypeAlias = Annotated[
    str, typer.Option(envvar="KUMA_DATAPLANE_DRAIN_TIME", help="How long connections may last on after SIGTERM.")
]
ContactTimeout: TypeAlias = Annotated[
    str,
    typer.Option(
        envvar="KUMA_DATAPLANE_CONTACT_TIMEOUT",
        help="How long it may serve without the control plane; then it drains and ends. Without a limit if empty.",
    ),
]
ReadinessPort: TypeAlias = Annotated[
    int | None,
    typer.Option(
        envvar="KUMA_READINESS_PORT",
        min=0,
        max=65535,
        help="Where GET http://127.0.0.1:PORT/ready tells whether the proxy is ready; 0: nowhere. 9902 if it is free.",
        show_default=False,
    ),
]
ReadinessAddress: TypeAlias = Annotated[
    str,
    typer.Option(
        envvar="KUMA_READINESS_ADDRESS",
        help="Address that readiness is told at; for an orchestrator on another machine that of this one.",
    ),
]
Probes: TypeAlias = Annotated[
    str,
    typer.Option(
        envvar="KUMA_DATAPLANE_PROBES",
        help="Probes of the workload that an orchestrator without a certificate asks here: JSON of the injector.",
    ),
]
LogLevel: TypeAlias = Annotated[AgentLogLevel, typer.Option(help="Least level that kuma-dp logs.")]
FormOfLog: TypeAlias = Annotated[
    LogFormat,
    typer.Option(
        envvar="KUMA_DATAPLANE_RUNTIME_LOG_FORMAT",
        help="How the lines of kuma-dp are written: for people, or as one JSON object each, those of Envoy too.",
    ),
]
LogLevelOfEnvoy: TypeAlias = Annotated[
    EnvoyLogLevel,
    typer.Option(envvar="KUMA_DATAPLANE_RUNTIME_ENVOY_LOG_LEVEL", help="Least level that Envoy logs."),
]
