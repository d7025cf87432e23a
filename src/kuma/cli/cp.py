"""`kuma-cp`: the control plane."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from pathlib import Path
from typing import Annotated

import structlog
import typer

import kuma
from kuma import assembly, config
from kuma.base import aio
from kuma.base.clock import SystemClock
from kuma.base.errors import KumaError

app = typer.Typer(
    name="kuma-cp",
    help="The control plane: gives every data plane proxy its identity and configuration.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.callback()
def _root() -> None:
    """Commands come as sub-commands even if there are few."""


@app.command()
def run(
    config_file: Annotated[
        Path | None,
        typer.Option("--config-file", "-c", help="YAML file with settings; environment variables win over it."),
    ] = None,
) -> None:
    """Run the control plane until it is stopped.

    Every setting has an environment variable, such as KUMA_API_SERVER_HTTP_PORT. Without any, the control plane
    listens on the loopback only and keeps its data in ~/.kuma.
    """
    settings = config.load(config_file)
    _log_as(settings.general)
    asyncio.run(_until_stopped(settings))


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(f"Kuma: {kuma.__version__}")


async def _until_stopped(settings: config.Settings) -> None:
    task = aio.spawn(assembly.run(settings, SystemClock()), name="control plane")
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        structlog.get_logger(__name__).info("stopped")


def _log_as(general: config.General) -> None:
    renderer: structlog.types.Processor = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    if general.log_format == "json":
        renderer = structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(general.log_level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def main() -> None:
    """Entry point: every failure is one sentence on standard error and exit status 1."""
    try:
        app()
    except aio.ComponentFailed as error:
        sys.exit(f"Error: {error.__cause__ if isinstance(error.__cause__, KumaError) else error}")
    except KumaError as error:
        sys.exit(f"Error: {error}")
