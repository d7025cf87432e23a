"""The process of one worker: a control plane that accepts from sockets which the parent has opened."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from pathlib import Path

import structlog

from kuma.app import assembly, process
from kuma.app.configuration.reloading import Reloading
from kuma.app.configuration.settings import Settings
from kuma.app.configuration.settings_file import load, with_workers
from kuma.app.worker import Worker
from kuma.app.workers.link import Link, ToParent
from kuma.app.workers.sharing import Share
from kuma.base import command_line, garbage, logs
from kuma.base.clock import SystemClock
from kuma.base.system import sockets


def run(share: Share) -> None:
    """Run a worker until its parent ends it, or is gone."""
    settings = load(Path(f"/dev/fd/{share.settings}") if share.settings is not None else None)
    if share.settings is not None:
        os.close(share.settings)
    reload = Reloading(settings, Path(share.file) if share.file else None, share.level)
    structlog.contextvars.bind_contextvars(worker=share.number)
    logs.log_as(share.level or settings.general.log_level, settings.general.log_format)
    with garbage.kept_short():
        asyncio.run(_run(share, with_workers(settings, share.of), reload))


async def _run(share: Share, settings: Settings, reload: Reloading) -> None:
    parent = ToParent(await Link.over(socket.socket(fileno=share.link)))
    worker = Worker(
        number=share.number,
        listen=_inherited(share),
        siblings=share.siblings,
        begin=parent.begin,
        tell_ready=parent.tell_ready,
    )
    await process.until_stopped(assembly.run(settings, SystemClock(), worker), reload, parent.lost())


def _inherited(share: Share) -> sockets.Listen:
    found = {setting: socket.socket(fileno=descriptor) for setting, descriptor in share.listeners.items()}

    def listen(_host: str, _port: int, setting: str) -> socket.socket:
        return found[setting]

    return listen


def main() -> None:
    """Entry point."""
    command_line.run(lambda: run(Share.read(sys.argv[1])))
