"""Opens a store, closes it, and is killed before the n-th time that Python touches a file of its directory."""

import asyncio
import os
import signal
import sys
from itertools import count
from pathlib import Path

from kuma.base.clock import SystemClock
from kuma.store.sql.embedded.sqlite import open_sqlite

KILL_BEFORE = "kill-before"
_TOUCHES = {"open", "os.rename", "os.remove", "os.mkdir", "sqlite3.connect", "sqlite3.connect/handle"}


def _kill_before(step: int, directory: str) -> None:
    steps = count()

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event not in _TOUCHES:
            return
        is_ours = event.startswith("sqlite3") or directory in str(arguments[0])
        if is_ours and next(steps) == step:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


async def _open_and_close(path: Path) -> None:
    await (await open_sqlite(path, SystemClock())).close()


if __name__ == "__main__":
    where, _, number = sys.argv[1:]
    _kill_before(int(number), str(Path(where).parent))
    asyncio.run(_open_and_close(Path(where)))
