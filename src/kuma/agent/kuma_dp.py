"""`kuma-dp`: runs an Envoy beside a workload."""

from __future__ import annotations

import asyncio
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import structlog
import typer

import kuma
from kuma.agent import bootstrap_client, envoy, original_options, ports, token_argument, token_source
from kuma.agent.token_source import TokenSource
from kuma.agent.workload import Workload, read_dataplane, workload
from kuma.base import aio, command_line, signals
from kuma.base.clock import SystemClock
from kuma.base.errors import Misconfigured
from kuma.base.values import durations

app = typer.Typer(
    name="kuma-dp",
    help="Runs a data plane proxy: a real Envoy, configured by the control plane.",
    no_args_is_help=True,
    rich_markup_mode=None,  # its columns would cut off the names of environment variables
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class AgentLogLevel(StrEnum):
    """Levels of kuma-dp's own log."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class EnvoyLogLevel(StrEnum):
    """Levels of Envoy's log."""

    TRACE = "trace"
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"
    OFF = "off"


@app.callback()
def _root() -> None:
    """Commands come as sub-commands even if there are few."""


@app.command()
def run(
    cp_address: Annotated[
        str, typer.Option(envvar="KUMA_CONTROL_PLANE_URL", help="Where the control plane hands out bootstraps.")
    ] = "https://localhost:5678",
    ca_cert_file: Annotated[
        Path | None,
        typer.Option(
            envvar="KUMA_CONTROL_PLANE_CA_CERT_FILE",
            help="CA of the control plane, PEM: ca.crt in its work directory. Without it the system's CAs count.",
        ),
    ] = None,
    dataplane_file: Annotated[
        str,
        typer.Option(
            "--dataplane-file",
            "-d",
            envvar="KUMA_DATAPLANE_RUNTIME_RESOURCE_PATH",
            help="Dataplane of this proxy, YAML; `-` is standard input. Registered while the proxy runs.",
        ),
    ] = "",
    dataplane: Annotated[
        str, typer.Option(envvar="KUMA_DATAPLANE_RUNTIME_RESOURCE", help="The Dataplane itself instead of a file.")
    ] = "",
    dataplane_var: Annotated[
        list[str] | None, typer.Option("--dataplane-var", "-v", help="name=value for {{ name }} in the Dataplane.")
    ] = None,
    name: Annotated[
        str,
        typer.Option(envvar="KUMA_DATAPLANE_NAME", help="Name of a Dataplane that exists already."),
    ] = "",
    mesh: Annotated[str, typer.Option(envvar="KUMA_DATAPLANE_MESH", help="Mesh of that Dataplane.")] = "",
    dataplane_token_file: Annotated[
        Path | None,
        typer.Option(
            envvar="KUMA_DATAPLANE_RUNTIME_TOKEN_PATH",
            help="File with the token of this proxy. A new one in it is used from the next stream on.",
        ),
    ] = None,
    dataplane_token: Annotated[
        str,
        typer.Option(
            envvar="KUMA_DATAPLANE_RUNTIME_TOKEN",
            show_envvar=True,
            help="The token itself. Prefer the file, which wins: arguments can be read in the list of processes.",
        ),
    ] = "",
    binary_path: Annotated[
        Path | None,
        typer.Option(envvar="KUMA_DATAPLANE_RUNTIME_BINARY_PATH", help="Envoy to run instead of the installed one."),
    ] = None,
    concurrency: Annotated[
        int, typer.Option(min=1, envvar="KUMA_DATAPLANE_RUNTIME_CONCURRENCY", help="Worker threads of Envoy.")
    ] = 2,
    drain_time: Annotated[
        str, typer.Option(envvar="KUMA_DATAPLANE_DRAIN_TIME", help="How long connections may last on after SIGTERM.")
    ] = "30s",
    contact_timeout: Annotated[
        str,
        typer.Option(
            envvar="KUMA_DATAPLANE_CONTACT_TIMEOUT",
            help="How long it may serve without the control plane; then it drains and ends. Without a limit if empty.",
        ),
    ] = "",
    log_level: Annotated[AgentLogLevel, typer.Option(help="Least level that kuma-dp logs.")] = AgentLogLevel.INFO,
    envoy_log_level: Annotated[
        EnvoyLogLevel,
        typer.Option(envvar="KUMA_DATAPLANE_RUNTIME_ENVOY_LOG_LEVEL", help="Least level that Envoy logs."),
    ] = EnvoyLogLevel.WARNING,
) -> None:
    """Run an Envoy for a Dataplane until it is stopped, then exit with Envoy's status.

    Example: kuma-dp run --dataplane-file=web.yaml --dataplane-token-file=token
    --cp-address=https://localhost:5678 --ca-cert-file=ca.crt
    """
    command_line.log_as(log_level, "console")
    os.environ.pop("KUMA_DATAPLANE_RUNTIME_TOKEN", None)  # not for Envoy
    if os.environ.pop(token_argument.MARK, ""):
        structlog.get_logger(__name__).warning(token_argument.WARNING)
    control_plane = bootstrap_client.ControlPlaneAddress(cp_address, ca_cert_file)
    control_plane.verification()  # complain before anything is started
    if dataplane and dataplane_file:
        raise Misconfigured("--dataplane and --dataplane-file cannot be given together")
    described = workload(
        text=dataplane or (read_dataplane(dataplane_file) if dataplane_file else ""),
        variables=dataplane_var or (),
        mesh=mesh,
        name=name,
        token=TokenSource.of(dataplane_token_file, dataplane_token),
    )
    options = envoy.EnvoyOptions(
        envoy.find_binary(binary_path),
        envoy_log_level,
        concurrency,
        drain=_seconds("--drain-time", drain_time),
        contact=_seconds("--contact-timeout", contact_timeout) if contact_timeout else None,
    )
    sys.exit(asyncio.run(_run(control_plane, described, options, envoy.version(options.binary))))


@app.command()
def version() -> None:
    """Print the version.

    Example: kuma-dp version
    """
    typer.echo(f"Kuma: {kuma.__version__}")


async def _run(
    control_plane: bootstrap_client.ControlPlaneAddress, described: Workload, options: envoy.EnvoyOptions, version: str
) -> int:
    """Fetch the bootstrap and run Envoy. SIGTERM, SIGINT and SIGHUP drain; a second one ends at once."""
    clock = SystemClock()
    fetching = aio.spawn(bootstrap_client.fetch(control_plane, described, version, clock), name="bootstrap")
    signals.on_end(fetching.cancel)
    try:
        fetched = await fetching
    except asyncio.CancelledError:
        return 0  # stopped before there was anything to end
    ports.check(fetched, described.dataplane.spec if described.dataplane else None)
    with token_source.secret(described.token, bootstrap_client.TOKEN_SECRET) as secret:
        complete = (
            bootstrap_client.with_token_from(fetched, secret.path)
            if secret
            else bootstrap_client.with_token(fetched, described.token.token)
        )
        proxy = envoy.Envoy(options, complete, clock, lambda: bootstrap_client.withdraw(control_plane, described))
        signals.on_end(proxy.stop)
        following = [aio.spawn(secret.follow(clock), name="token")] if secret else []
        try:
            return await proxy.run()
        finally:
            await aio.stop(following)


def _seconds(option: str, text: str) -> float:
    try:
        return durations.parse_go_duration(text).total_seconds()
    except ValueError as error:
        raise Misconfigured(f"{option} {error}") from None


def main() -> None:
    """Entry point."""
    token_argument.hide()
    command_line.run(_with_options_of_the_original)


def _with_options_of_the_original() -> None:
    """Run the command with what is left when the original's options have been taken."""
    taken = original_options.take(sys.argv[1:])
    os.environ.update(original_options.ca_from_environment(taken.arguments, os.environ))
    if taken.log_file:
        original_options.log_to(taken.log_file)
    read = {name for option in typer.main.get_command(app).commands["run"].params for name in _variables(option)}  # type: ignore[attr-defined]
    for name in original_options.unread(os.environ, frozenset(read)):
        typer.echo(f"Warning: the environment variable {name} has no effect here", err=True)
    for warning in taken.warnings:
        typer.echo(f"Warning: {warning}", err=True)
    sys.argv[1:] = taken.arguments
    app()


def _variables(option: Any) -> tuple[str, ...]:
    """The environment variables that an option is read from."""
    named = option.envvar or ()
    return (named,) if isinstance(named, str) else tuple(named)
