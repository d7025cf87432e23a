"""Seals a store anew and is killed in the middle of it, at the point that is named."""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

from kuma.base.clock import SystemClock
from kuma.store import seal
from kuma.store.sql import SqlStore
from kuma.store.sqlite import open_sqlite


def killed_at(owner: Any, name: str, *, after: bool) -> None:
    """Have a step of the sealing end the process instead of beginning, or once it is done."""
    step = getattr(owner, name)

    async def ending(*arguments: Any) -> None:
        if after:
            await step(*arguments)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, name, ending)


async def main(path: Path, point: str) -> None:
    store: SqlStore = await open_sqlite(path, SystemClock())
    owner, name, after = {
        "before the rows": (seal, "seal_anew", False),
        "after the rows": (store, "_scrub", False),
        "after the scrub": (store, "_scrub", True),
    }[point]
    killed_at(owner, name, after=after)
    await store.rekey()


asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
