"""An HTTP server as a component: uvicorn without its command line, signals and global state."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import uvicorn

from kuma.base import aio, sockets
from kuma.base.errors import Misconfigured

_LARGEST_HEAD = 16 * 1024
"""Bytes of a request's line and headers together."""
_CONNECTIONS = 1000
"""Connections at once, of all clients; more are answered with 503."""


class HttpServer:
    """Serves one application on one port, in the clear or (with `tls`: chain and key) over TLS 1.2 or later."""

    def __init__(self, app: Any, host: str, port: int, *, setting: str, tls: tuple[Path, Path] | None = None) -> None:
        self._app = app
        self._host = host
        self._port = port
        self._setting = setting
        self._tls = tls
        self._bound: aio.Latest[int] = aio.Latest(0)

    async def port(self) -> int:
        """The port that is listened on, once it is."""
        if not self._bound.value:
            await self._bound.newer_than(0)
        return self._bound.value

    async def url(self) -> str:
        """Where clients on this machine, or of the address that is listened on, find it, once they do."""
        host = {"0.0.0.0": "localhost", "::": "localhost", "127.0.0.1": "localhost"}.get(self._host, self._host)  # noqa: S104
        shown = f"[{host}]" if ":" in host else host
        return f"{'https' if self._tls else 'http'}://{shown}:{await self.port()}"

    async def run(self) -> None:
        """Serve until cancelled.

        Raises:
            Misconfigured: the port is in use; names the setting.
        """
        config = uvicorn.Config(
            self._app,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=1,
            http="h11",
            h11_max_incomplete_event_size=_LARGEST_HEAD,
            limit_concurrency=_CONNECTIONS,
            **self._tls_options(),
        )
        server = _Server(config)
        with self._listen() as listener:
            self._bound.set(listener.getsockname()[1])
            serving = aio.spawn(server.serve(sockets=[listener]), name=f"HTTP on port {self._bound.value}")
            try:
                await asyncio.shield(serving)
            finally:
                server.should_exit = True
                with suppress(asyncio.CancelledError):
                    await serving

    def _listen(self) -> socket.socket:
        try:
            listener = sockets.bound(self._host, self._port)
            listener.listen(1024)
        except OSError as error:
            raise Misconfigured(
                f"cannot listen on {self._host}:{self._port}: {error.strerror}. "
                f"Stop the other program, or set {self._setting} to another port"
            ) from None
        return listener

    def _tls_options(self) -> dict[str, Any]:
        if self._tls is None:
            return {}
        chain, key = self._tls

        def context(_: Any, make: Any) -> ssl.SSLContext:
            made: ssl.SSLContext = make()
            made.minimum_version = ssl.TLSVersion.TLSv1_2
            return made

        return {"ssl_certfile": chain, "ssl_keyfile": key, "ssl_context_factory": context}


class _Server(uvicorn.Server):
    """Signals are the program's business, not a component's."""

    def capture_signals(self) -> Any:
        return nullcontext()
