"""Files and directories that nobody but their owner reads."""

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
