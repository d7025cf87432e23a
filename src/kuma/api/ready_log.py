"""Says once that the control plane is ready: whoever has started it in a terminal sees where it is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping

import structlog

from kuma.api.http.server import HttpServer

log = structlog.get_logger(__name__)


class ReadyLog:
    """Waits until every server listens and what is stored is known, and logs `ready` once.

    Whoever has started it is told, too: the service manager, say.
    """

    def __init__(
        self,
        servers: Mapping[str, HttpServer],
        others: Iterable[Callable[[], Awaitable[object]]],
        facts: Mapping[str, object],
        tell: Callable[[], None],
    ) -> None:
        """`tell` tells whoever has started this process."""
        self._servers = servers
        self._others = tuple(others)
        self._facts = facts
        self._tell = tell

    async def run(self) -> None:
        """Wait, log, and go on until cancelled."""
        for other in self._others:
            await other()
        urls = {name: await server.url() for name, server in self._servers.items()}
        log.info("ready", **urls, **self._facts)
        self._tell()
        await asyncio.Event().wait()
