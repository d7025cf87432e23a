"""Text that people hand over in files: UTF-8, whatever the locale of the machine is."""

from __future__ import annotations

import errno
import io
import sys
from pathlib import Path

STANDARD_INPUT = "-"
_UTF8 = "utf-8-sig"  # some editors put a mark at the beginning


def read(file: str) -> str:
    """Returns the text in a file, or on standard input if that is `-`.

    Raises:
        OSError: it cannot be read.
        UnicodeDecodeError: it is no text in UTF-8.
    """
    if file != STANDARD_INPUT:
        return Path(file).read_text(_UTF8)
    if sys.stdin is None:
        raise OSError(errno.EBADF, "standard input is closed")
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding=_UTF8, errors="strict")
    return sys.stdin.read()
