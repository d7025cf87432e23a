"""Seals a store anew and is killed in the middle of it, at the point that is named.

Python tells its audit hooks (PEP 578) of files that are opened and renamed, and of databases that are connected to: the
steps of the sealing show by these, and nothing of it has to be replaced.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path

from kuma.base.clock import SystemClock
from kuma.store.sql.embedded.sqlite import open_sqlite


def kill_at(event: str, what: str, *, times: int) -> None:
    """End this process when `event` happens to the file `what`, for the given time."""
    left = times

    def hook(happening: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        if happening == event and str(arguments[0]) == what:
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


async def main(path: Path, point: str) -> None:
    store = await open_sqlite(path, SystemClock())
    fresh_key = path.with_name(f".{path.name}.key.new")
    event, what, times = {
        "before the rows": ("open", path.parent, 2),  # to lock it, and to synchronise it once the key file is renamed
        "after the rows": ("sqlite3.connect", path, 1),  # for the scrub
        "after the scrub": ("os.rename", fresh_key, 2),  # the key file without the old key
    }[point]
    kill_at(event, str(what), times=times)
    await store.rekey()


asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
