"""Does one thing and is killed in the middle of it: before the change of a directory that is given by its number."""

import os
import signal
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

from kuma.app.serving import server_certificate
from kuma.store.sql.embedded.backup import restore

_CHANGES = {"os.rename", "os.remove", "os.link"}


def _kill_before(change: int) -> None:
    numbers = count()

    def hook(event: str, _: object) -> None:
        if event in _CHANGES and next(numbers) == change:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def _restore(directory: Path) -> None:
    restore(directory / "copy.db", directory / "kuma.db", directory / "kuma.db.key")


def _first_start(directory: Path) -> None:
    server_certificate.ensure(directory, ("localhost",), datetime.now(UTC))


_DEEDS: dict[str, Callable[[Path], None]] = {"restore": _restore, "first start": _first_start}

if __name__ == "__main__":
    deed, where, number = sys.argv[1:]
    _kill_before(int(number))
    _DEEDS[deed](Path(where))
