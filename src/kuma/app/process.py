"""The life of a process of the control plane: until a signal ends it."""

from __future__ import annotations

import asyncio
import contextlib
import resource
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from kuma.base import aio
from kuma.base.system import service_manager, signals


def open_many_files() -> None:
    """Raises the limit of open files: every connection is one, and the usual limit is below what settings allow."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def until_stopped(
    work: Coroutine[Any, Any, None],
    reload: Callable[[], None] | None,
    lost: Coroutine[Any, Any, None] | None = None,
) -> None:
    """Work until a signal, or the end of `lost`, has it end in good order; SIGHUP does not, with `reload`."""
    task = aio.spawn(work, name="control plane")

    def end(*_: object) -> None:
        # Once: ending takes seconds at most, and a second signal would cut off what is being answered or written.
        if not task.cancelling():
            service_manager.tell(service_manager.STOPPING)
            task.cancel()

    signals.on_end(end)
    if reload is not None:
        signals.on_reload(reload)
    listening = [aio.spawn(lost, name="parent")] if lost is not None else []
    for each in listening:
        each.add_done_callback(end)
    try:
        await task
    except asyncio.CancelledError:
        structlog.get_logger(__name__).info("stopped")
    finally:
        await aio.stop(listening)
