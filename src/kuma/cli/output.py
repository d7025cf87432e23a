"""What the commands have in common: how they log, and how they fail."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import NoReturn

import structlog
import typer

from kuma.base import aio
from kuma.base.errors import KumaError


def log_as(level: str, form: str) -> None:
    """Log to standard error from `level` upwards, for people (`console`) or machines (`json`)."""
    renderer: structlog.types.Processor = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    if form == "json":
        renderer = structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def run(app: Callable[[], object]) -> NoReturn:
    """Run a command: every failure is one sentence on standard error and exit status 1, never a traceback."""
    try:
        app()
    except aio.ComponentFailed as error:
        fail(*(cause for cause in error.causes if isinstance(cause, KumaError)), otherwise=error)
    except KumaError as error:
        fail(error)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0)


def fail(*errors: Exception, otherwise: Exception | None = None) -> NoReturn:
    """Say what is wrong and end; `otherwise` is told if there is nothing else to tell."""
    for error in errors or (otherwise,):
        typer.echo(f"Error: {error}", err=True)
    sys.exit(1)
