"""`--watch`: what a command shows, again at every change, until it is stopped."""

from __future__ import annotations

import select
import sys
from collections.abc import Callable
from typing import TypeVar

import typer

from kuma.base import command_line
from kuma.kumactl.connection.client import RequestFailed
from kuma.kumactl.terminal import is_terminal

Found = TypeVar("Found")
_INTERVAL = 1.0
"""Seconds between two looks."""
_CLEAR = "\x1b[2J\x1b[H"


def show(watch: bool, look: Callable[[], Found], draw: Callable[[Found], None]) -> None:
    """Draw what is found, once; or, to `watch`, for ever.

    A terminal is drawn anew each time. What reads a pipe gets what has changed, and an empty line before it. A control
    plane that does not answer is waited for.
    """
    if not watch or sys.stdout is None:  # it is closed: nobody looks
        draw(look())
        return
    on_terminal, before, told = is_terminal(), None, ""
    while True:
        try:
            found = look()
        except RequestFailed as error:
            if not error.passes:
                raise
            if str(error) != told:
                command_line.warn(error)
            told = str(error)
        else:
            if on_terminal or found != before:
                typer.echo(_CLEAR if on_terminal else "\n" * (before is not None), nl=False)
                draw(found)
                sys.stdout.flush()
            before, told = found, ""
        _wait(_INTERVAL)


def _wait(seconds: float) -> None:
    """Pass the time until the next look; ends the command when nobody reads its output any more."""
    reader = select.poll()
    reader.register(sys.stdout.fileno(), 0)  # errors are told without being asked for
    if reader.poll(seconds * 1000):
        raise typer.Exit(1)
