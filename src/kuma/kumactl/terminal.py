"""What standard output is: a terminal that people look at, or something that programs read."""

from __future__ import annotations

import os
import shutil
import sys


def is_terminal() -> bool:
    """Tells whether people look at what is printed, rather than programs."""
    return sys.stdout is not None and sys.stdout.isatty()


def has_colours() -> bool:
    """Tells whether to colour: only what people look at, and not if they do not want it (https://no-color.org)."""
    return is_terminal() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def width() -> int | None:
    """Returns how many columns a line has room for; None if nobody looks, and every length is right."""
    return shutil.get_terminal_size((80, 24)).columns if is_terminal() else None
