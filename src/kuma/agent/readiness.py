"""Tells orchestrators and load balancers whether the proxy is ready, on a port of its own: `GET /ready`.

`GET /live` tells that kuma-dp answers at all: it is not to be restarted for a control plane that is away.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable

import structlog

from kuma.base import sockets
from kuma.base.errors import Misconfigured
from kuma.base.values.urls import host_port

log = structlog.get_logger(__name__)

DEFAULT_PORT = 9902
ADDRESS = "127.0.0.1"
READY, STARTING, TERMINATING = "READY", "STARTING", "TERMINATING"
_PATIENCE = 5.0
"""Seconds that a client has for its request and to take the answer."""


def listen(port: int | None, address: str = ADDRESS) -> socket.socket | None:
    """Returns where readiness is told; None if it is not: `port` is 0, or not given and the usual one is taken.

    Several proxies may run on one machine. Of these one has the usual port.

    Raises:
        Misconfigured: the port or the address that was given cannot be listened on.
    """
    if port == 0:
        return None
    wanted = DEFAULT_PORT if port is None else port
    try:
        found = sockets.bound(address, wanted)
        found.listen()
    except OSError as error:
        reason = f"{host_port(address, wanted)}: {error.strerror}"
        if port is not None or address != ADDRESS:
            raise Misconfigured(f"--readiness-port {reason}; choose another port, or 0 for none") from None
        log.warning("readiness is not told: give this proxy a port with --readiness-port", reason=reason)
        return None
    found.setblocking(False)
    return found


class Readiness:
    """Answers 200 if the proxy is READY, else 503, each with the state as its text."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self.state: Callable[[], Awaitable[str]] = _starting
        """Asks how the proxy is; until there is one, it starts."""

    async def run(self) -> None:
        """Answer until cancelled."""
        async with await asyncio.start_server(self._connected, sock=self._listener) as server:
            await server.serve_forever()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_PATIENCE):
                writer.write(await self._answer(await _target(reader)))
                await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # whoever does not speak HTTP, or does not wait, is told nothing
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, target: str) -> bytes:
        if target == "/live":
            return _response("200 OK", "LIVE")
        if target != "/ready":
            return _response("404 Not Found", "only GET /ready and GET /live are here")
        found = await self.state()
        return _response("200 OK" if found == READY else "503 Service Unavailable", found)


async def _starting() -> str:
    return STARTING


async def _target(reader: asyncio.StreamReader) -> str:
    """Returns the path that is asked for; empty for another method than GET and HEAD, or what is no request."""
    head = await reader.readuntil(b"\r\n\r\n")
    method, _, rest = head.decode("latin-1").partition(" ")
    return rest.split(" ")[0].partition("?")[0] if method in ("GET", "HEAD") else ""


def _response(status: str, text: str) -> bytes:
    head = f"HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: {len(text) + 1}\r\nconnection: close\r\n"
    return f"{head}\r\n{text}\n".encode()
