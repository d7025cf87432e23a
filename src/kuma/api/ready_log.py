"""Says once that the control plane is ready: whoever has started it in a terminal sees where it is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping

import structlog

from kuma.api.http.server import HttpServer
from kuma.base.system import service_manager

log = structlog.get_logger(__name__)


class ReadyLog:
    """Waits until every server listens and what is stored is known, and logs `ready` once.

    The service manager is told, too.
    """

    def __init__(
        self,
        servers: Mapping[str, HttpServer],
        others: Iterable[Callable[[], Awaitable[object]]],
        facts: Mapping[str, object],
    ) -> None:
        self._servers = servers
        self._others = tuple(others)
        self._facts = facts

    async def run(self) -> None:
        """Wait, log, and go on until cancelled."""
        for other in self._others:
            await other()
        urls = {name: await server.url() for name, server in self._servers.items()}
        log.info("ready", **urls, **self._facts)
        service_manager.tell(service_manager.READY)
        await asyncio.Event().wait()
