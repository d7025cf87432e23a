"""Files and directories that nobody but their owner reads, files that are replaced at once, and files of others."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import structlog

from kuma.base.errors import Misconfigured

log = structlog.get_logger(__name__)

_LARGEST = 1 << 20
"""Bytes of a file with certificates, a key or a token."""


def content(path: Path) -> bytes:
    """Returns what a file holds. It waits for nobody: whatever has taken the place of the file keeps nothing waiting.

    Raises:
        OSError: it cannot be read, is none (but a pipe or a device, say), or is larger than a mebibyte.
    """
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "this is no file but a directory, a pipe or a device", str(path))
        found = file.read(_LARGEST + 1)
    if len(found) > _LARGEST:
        raise OSError(errno.EFBIG, f"this holds more than {_LARGEST} bytes", str(path))
    return found


def warn_of_readers(key: Path) -> None:
    """Warns if somebody else may read the file of a key, or replace it; a group may have been given it on purpose."""
    try:
        found = key.stat()
    except OSError:
        return
    if stat.S_IMODE(found.st_mode) & stat.S_IRWXO:
        log.warning("everybody on this machine can read or replace this key", path=str(key), remedy=f"chmod o= {key}")
    if found.st_uid not in (0, os.geteuid()):
        log.warning(
            "this key belongs to another user, who can read and replace it",
            path=str(key),
            user=found.st_uid,
            remedy=f"chown {os.geteuid()} {key}",
        )


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


@contextlib.contextmanager
def one_at_a_time(directory: Path) -> Iterator[None]:
    """Has other processes that do this in a directory wait until the end of the block; who dies keeps nobody waiting.

    Raises:
        OSError: there is no such directory.
    """
    held = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


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
