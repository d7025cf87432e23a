"""Common parts of the commands: error messages, and how a command ends. It is imported by every run of kumactl."""

from __future__ import annotations

import errno
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import typer

from kuma.base.errors import ComponentFailed, KumaError, Misconfigured
from kuma.base.values.printable import LINES, printable


def run(app: Callable[[], object]) -> NoReturn:
    """Run a command: every failure is one sentence on standard error and exit status 1, never a traceback."""
    _colour_on_terminals_only()
    try:
        signal.signal(signal.SIGINT, _interrupted)
        app()
    except ComponentFailed as error:
        fail(*(cause for cause in error.causes if isinstance(cause, KumaError)), otherwise=error)
    except KumaError as error:
        fail(error)
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        fail(Misconfigured(f"cannot write: {error.strerror}") if error.errno in _NO_ROOM else Defect(error))
    except Exception as error:
        fail(Defect(error))
    sys.exit(0)


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""A disk is full or broken, such as where the output goes; that is no defect of the program."""


def _interrupted(*_: object) -> NoReturn:
    """Ctrl-C ends a command as it ends any program of Unix."""
    sys.exit(128 + signal.SIGINT)


def _colour_on_terminals_only() -> None:
    """Writes colours to terminals only: whoever reads a pipe or a file does not expect escape sequences."""
    for variable in ("FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS", "TTY_COMPATIBLE"):
        os.environ.pop(variable, None)
    helper = sys.modules.get("typer.rich_utils")
    if helper is not None:  # it has looked at them already
        helper.FORCE_TERMINAL = None  # type: ignore[attr-defined]


class Defect(Exception):
    """An error that nobody expected. Its text is not told: it may quote anything, such as a token."""

    def __init__(self, error: Exception) -> None:
        *_, last = traceback.extract_tb(error.__traceback__)
        where = f"{Path(last.filename).name}, line {last.lineno}"
        super().__init__(f"this is a defect of the program: {type(error).__name__} in {where}; please report it")


def fail(*errors: Exception, otherwise: Exception | None = None) -> NoReturn:
    """Say what is wrong and end; `otherwise` is told if there is nothing else to tell."""
    for error in errors or (otherwise,):
        tell_error(error)
    sys.exit(1)


def tell_error(error: Exception | None) -> None:
    """Say what is wrong, on standard error."""
    _told("Error", error)


def warn(about: object) -> None:
    """Say what should be looked at, on standard error."""
    _told("Warning", about)


def _told(what: str, about: object) -> None:
    """Texts may be somebody else's, such as of a file or of what answers: they command no terminal."""
    typer.echo(f"{what}: {printable(str(about), keep=LINES)}", err=True)
