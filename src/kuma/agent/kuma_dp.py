"""`kuma-dp`: runs an Envoy beside a workload."""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
from dataclasses import replace
from typing import Any

import structlog
import typer

import kuma
from kuma.agent import (
    bootstrap_client,
    envoy,
    options,
    original_options,
    ports,
    private_directory,
    readiness,
    token_argument,
    token_source,
    trusted_ca,
)
from kuma.agent import probes as workload_probes
from kuma.agent.contact.lost_trust import LostTrust
from kuma.agent.options import AgentLogLevel, EnvoyLogLevel, LogFormat
from kuma.agent.probes import Probes
from kuma.agent.token_source import TokenSource
from kuma.agent.workload import Workload, read_dataplane, workload
from kuma.base import aio, command_line, logs
from kuma.base.clock import SystemClock
from kuma.base.errors import Misconfigured
from kuma.base.system import signals
from kuma.base.values import durations

app = typer.Typer(
    name="kuma-dp",
    help="Runs a data plane proxy: a real Envoy, configured by the control plane.",
    no_args_is_help=True,
    rich_markup_mode=None,  # its columns would cut off the names of environment variables
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _root() -> None:
    """Commands come as sub-commands even if there are few."""


@app.command()
def run(
    cp_address: options.ControlPlaneUrl = "https://localhost:5678",
    ca_cert_file: options.CaCertFile = None,
    dataplane_file: options.DataplaneFile = "",
    dataplane: options.DataplaneText = "",
    dataplane_var: options.DataplaneVariables = None,
    name: options.DataplaneName = "",
    mesh: options.DataplaneMesh = "",
    dataplane_token_file: options.TokenFile = None,
    dataplane_token: options.Token = "",
    binary_path: options.BinaryPath = None,
    concurrency: options.Concurrency = 2,
    drain_time: options.DrainTime = "30s",
    contact_timeout: options.ContactTimeout = "",
    readiness_port: options.ReadinessPort = None,
    readiness_address: options.ReadinessAddress = readiness.ADDRESS,
    probes: options.Probes = "",
    log_level: options.LogLevel = AgentLogLevel.INFO,
    log_format: options.FormOfLog = LogFormat.CONSOLE,
    envoy_log_level: options.LogLevelOfEnvoy = EnvoyLogLevel.WARNING,
) -> None:
    """Run an Envoy for a Dataplane until it is stopped, then exit with Envoy's status.

    Example: kuma-dp run --dataplane-file=web.yaml --dataplane-token-file=token
    --cp-address=https://localhost:5678 --ca-cert-file=ca.crt
    """
    logs.log_as(log_level, log_format)
    _forget_the_token()
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
    running = envoy.EnvoyOptions(
        envoy.find_binary(binary_path),
        envoy_log_level,
        concurrency,
        logs_json=log_format is LogFormat.JSON,
        drain=_seconds("--drain-time", drain_time),
        contact=_seconds("--contact-timeout", contact_timeout) if contact_timeout else None,
    )
    listener = readiness.listen(readiness_port, readiness_address)
    told, asked = readiness.Readiness(listener) if listener else None, workload_probes.listen(probes, readiness_address)
    described = replace(described, readiness_port=listener.getsockname()[1] if listener else 0)
    sys.exit(asyncio.run(_run(control_plane, described, running, envoy.version(running.binary), told, asked)))


def _forget_the_token() -> None:
    """Takes the token out of the environment, which Envoy inherits, and warns if it was among the arguments."""
    os.environ.pop("KUMA_DATAPLANE_RUNTIME_TOKEN", None)
    if os.environ.pop(token_argument.MARK, ""):
        structlog.get_logger(__name__).warning(token_argument.WARNING)


@app.command()
def version() -> None:
    """Print the version.

    Example: kuma-dp version
    """
    typer.echo(f"Kuma: {kuma.__version__}")


async def _run(
    control_plane: bootstrap_client.ControlPlaneAddress,
    described: Workload,
    running: envoy.EnvoyOptions,
    version: str,
    told: readiness.Readiness | None,
    asked: Probes | None,
) -> int:
    """Fetch the bootstrap and run Envoy, and tell meanwhile whether it and the workload are ready."""
    answering = (("readiness", told), ("probes of the workload", asked))
    tasks = [aio.spawn(one.run(), name=name) for name, one in answering if one is not None]
    try:
        return await _proxy(control_plane, described, running, version, told)
    finally:
        await aio.stop(tasks)


async def _proxy(
    control_plane: bootstrap_client.ControlPlaneAddress,
    described: Workload,
    running: envoy.EnvoyOptions,
    version: str,
    told: readiness.Readiness | None,
) -> int:
    """Runs the proxy. SIGTERM, SIGINT and SIGHUP drain; a second one ends at once."""
    clock = SystemClock()
    fetching = aio.spawn(bootstrap_client.fetch(control_plane, described, version, clock), name="bootstrap")
    signals.on_end(fetching.cancel)
    try:
        fetched = await fetching
    except asyncio.CancelledError:
        return 0  # stopped before there was anything to end
    ports.check(fetched, described.dataplane.spec if described.dataplane else None)
    place = private_directory.place(version)
    with (
        token_source.secret(described.token, bootstrap_client.TOKEN_SECRET, place) as secret,
        trusted_ca.followed(control_plane.ca_file, place) as ca,
    ):
        complete = (
            bootstrap_client.with_token_from(fetched, secret.path)
            if secret
            else bootstrap_client.with_token(fetched, described.token.token)
        )
        proof = secrets.token_urlsafe()
        complete = bootstrap_client.with_farewell(complete, proof)
        complete = trusted_ca.with_ca_from(complete, ca.path) if ca else complete
        if running.contact is not None:
            complete = bootstrap_client.with_contact_limit(complete, running.contact)
        proxy = envoy.Envoy(
            running, complete, clock, lambda: bootstrap_client.withdraw(control_plane, described, proof)
        )
        signals.on_end(proxy.stop)
        if told is not None:
            told.state = proxy.state
        trust = LostTrust(control_plane, clock)
        following = [aio.spawn(trust.run(proxy.admin_url), name="trust in the control plane")]
        following += [aio.spawn(secret.follow(clock), name="token")] if secret else []
        following += [aio.spawn(ca.follow(clock), name="CA of the control plane")] if ca else []
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
    for warning in (*original_options.unread(os.environ, frozenset(read)), *taken.warnings):
        command_line.warn(warning)
    sys.argv[1:] = taken.arguments
    app()


def _variables(option: Any) -> tuple[str, ...]:
    """The environment variables that an option is read from."""
    named = option.envvar or ()
    return (named,) if isinstance(named, str) else tuple(named)
