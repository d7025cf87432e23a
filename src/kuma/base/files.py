"""Files and directories that nobody but their owner reads, and files that are replaced at once."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import structlog

from kuma.base.errors import Misconfigured

log = structlog.get_logger(__name__)


def tighten(path: Path) -> None:
    """Take the permissions of group and others away from a file or directory that has some; what is not there is not.

    Raises:
        Misconfigured: that cannot be done, because somebody else owns it.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077 and not mode & stat.S_ISVTX:  # a directory for everybody, such as for temporary files
            path.chmod(mode & 0o700)
            log.warning("others could use this; now they cannot", path=str(path), mode=f"{mode:04o}")
    except FileNotFoundError:
        return
    except OSError as error:
        raise Misconfigured(
            f"{path} can be used by others, and that cannot be changed: {error.strerror}. "
            f"Give it to user {os.geteuid()}, or run: chmod go= {path}"
        ) from None


def replace(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Replace a file at once: it has the new content or the old one, whatever happens, for those whom `mode` admits.

    Raises:
        OSError: it cannot be written.
    """
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    move(fresh, path)


def move(path: Path, target: Path) -> None:
    """Give a file another name in its directory, for good.

    Raises:
        OSError: that cannot be done.
    """
    path.rename(target)
    directory = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
