"""Runs a control plane of several workers: the parent's own parts."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from prometheus_client import CollectorRegistry

from kuma.app import process
from kuma.app.configuration.settings import Settings
from kuma.app.serving import servers
from kuma.app.workers import diagnostics
from kuma.app.workers.parent import Workers
from kuma.app.workers.sharing import Sharing
from kuma.base import aio, files
from kuma.base.clock import SystemClock
from kuma.base.system import service_manager, sockets


async def until_stopped(settings: Settings, file: Path | None, level: str | None, reload: Callable[[], None]) -> None:
    """Run as many workers as the settings say until told to end; see `process.until_stopped`.

    `file` and `level` are what the command was given; `reload` takes up what concerns the parent itself.

    Raises:
        Misconfigured: a port is in use, say.
        ComponentFailed: a worker has ended before all were ready.
    """
    clock, registry = SystemClock(), CollectorRegistry()
    files.tighten(settings.work_dir)
    certificate = servers.certificate(settings, clock)  # made once, here
    with contextlib.ExitStack() as stack:
        shared = Sharing(settings, file, level, stack)
        chosen = settings.diagnostics
        own = stack.enter_context(
            sockets.listening(chosen.server_interface, chosen.server_port, servers.DIAGNOSTICS_PORT)
        )
        workers = Workers(shared, clock, registry)
        ports = {number: shared.diagnostics_of(number) for number in shared.numbers}
        app = diagnostics.create_app(ports, lambda: workers.ready, registry)
        parts: tuple[tuple[str, aio.Component], ...] = (
            ("servers' certificate", certificate),
            ("diagnostics server", servers.diagnostics(chosen, app, lambda *_: own)),
            *workers.components(),
        )

        async def run() -> None:
            try:
                await aio.supervise(parts)
            finally:
                stack.close()  # who connects now is refused as soon as no worker accepts any more
                await workers.end()

        def reload_all() -> None:
            reload()
            workers.reload()

        await process.until_stopped(run(), reload_all if service_manager.is_there() else None)
