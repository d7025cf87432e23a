"""Seals a store anew and is killed in the middle of it, at the point that is named."""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

from kuma.base.clock import SystemClock
from kuma.store.sql import SqlStore
from kuma.store.sqlite import open_sqlite


def killed_at(store: Any, name: str, *, after: bool) -> None:
    """Have a step of the store end the process instead of beginning, or once it is done."""
    step = getattr(store, name)

    async def ending(*arguments: Any) -> None:
        if after:
            await step(*arguments)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(store, name, ending)


async def main(path: Path, point: str) -> None:
    store: SqlStore = await open_sqlite(path, SystemClock())
    name, after = {
        "before the rows": ("_seal_anew", False),
        "after the rows": ("_scrub", False),
        "after the scrub": ("_scrub", True),
    }[point]
    killed_at(store, name, after=after)
    await store.rekey()


asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
