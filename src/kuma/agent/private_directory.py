"""A directory for what Envoy is given in files: in memory where the system has that, and nobody else's to enter."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

_MEMORY = Path("/dev/shm")  # noqa: S108 - a directory of its own is made there
_READS_MEMORY_SINCE = (1, 39)
"""The Envoy that reads files there; older ones read nothing below `/dev`."""
_VERSION = re.compile(r"(\d+)\.(\d+)")
_NEW = 60.0
"""Seconds in which whoever has made a directory comes to hold it."""


def place(envoy_version: str) -> Path:
    """Returns where an Envoy reads files: in memory if it does so there, and if the system has that."""
    found = _VERSION.match(envoy_version)
    is_read = found is not None and (int(found[1]), int(found[2])) >= _READS_MEMORY_SINCE
    return _MEMORY if is_read and os.access(_MEMORY, os.W_OK) else Path(tempfile.gettempdir())


@contextlib.contextmanager
def opened(place: Path, prefix: str) -> Iterator[Path]:
    """Makes a directory in some place whose name begins like this, for as long as the block lasts.

    Those with such names of processes that were killed go.

    Raises:
        OSError: there is no place for it.
    """
    _clear(place, prefix)
    directory = Path(tempfile.mkdtemp(prefix=prefix, dir=place))
    held = _held(directory)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        os.close(held)


def _clear(place: Path, prefix: str) -> None:
    """Removes what those have left that were killed: nobody holds their directories any more."""
    for left in place.glob(f"{prefix}*"):
        with contextlib.suppress(OSError):  # it is another user's, or somebody holds it, or was faster
            if time.time() - left.stat().st_mtime > _NEW:
                os.close(_held(left))
                shutil.rmtree(left)


def _held(directory: Path) -> int:
    """Holds a directory as long as the process lasts: whoever is killed lets go of it.

    By a lock and not by the number of the process, which says nothing across containers with a common /dev/shm.

    Raises:
        OSError: another one holds it.
    """
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(opened)
        raise
    return opened
