"""What the commands have in common: how they log, and how they fail."""

from __future__ import annotations

import logging
import os
import signal
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
    _colour_on_terminals_only()
    signal.signal(signal.SIGINT, _interrupted)
    try:
        app()
    except aio.ComponentFailed as error:
        fail(error.__cause__ if isinstance(error.__cause__, KumaError) else error)
    except KumaError as error:
        fail(error)
    sys.exit(0)


def _interrupted(*_: object) -> NoReturn:
    """Ctrl-C ends a command as it ends any program of Unix."""
    sys.exit(128 + signal.SIGINT)


def _colour_on_terminals_only() -> None:
    """Whatever the environment says: what reads a pipe or a file does not expect escape sequences."""
    for variable in ("FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS", "TTY_COMPATIBLE"):
        os.environ.pop(variable, None)
    helper = sys.modules.get("typer.rich_utils")
    if helper is not None:  # it has looked at them already
        helper.FORCE_TERMINAL = None  # type: ignore[attr-defined]


def log_requests(level: str) -> None:
    """Tell each request of the HTTP client, and its status, on standard error; never what it carries."""
    if level == "off":
        return
    logger = logging.getLogger("httpx")
    logger.setLevel(level.upper())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(handler)


def fail(error: Exception) -> NoReturn:
    """Say what is wrong and end."""
    typer.echo(f"Error: {error}", err=True)
    sys.exit(1)
