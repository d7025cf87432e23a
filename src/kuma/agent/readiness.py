"""Tells orchestrators and load balancers whether the proxy is ready, on a port of its own: `GET /ready`.

`GET /live` tells that kuma-dp answers at all: it is not to be restarted for a control plane that is away.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable

import h11
import structlog

from kuma.agent.short_answers import ShortAnswers
from kuma.base.errors import Misconfigured
from kuma.base.system import sockets
from kuma.base.values.urls import host_port

log = structlog.get_logger(__name__)

DEFAULT_PORT = 9902
ADDRESS = "127.0.0.1"
READY, STARTING, TERMINATING = "READY", "STARTING", "TERMINATING"


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
        self._server = ShortAnswers(listener, self._answer)
        self.state: Callable[[], Awaitable[str]] = _starting
        """Asks how the proxy is; until there is one, it starts."""

    async def run(self) -> None:
        """Answer until cancelled."""
        await self._server.run()

    async def _answer(self, request: h11.Request) -> tuple[int, str]:
        path = request.target.partition(b"?")[0] if request.method in (b"GET", b"HEAD") else b""
        if path == b"/live":
            return 200, "LIVE"
        if path != b"/ready":
            return 404, "only GET /ready and GET /live are here"
        found = await self.state()
        return 200 if found == READY else 503, found


async def _starting() -> str:
    return STARTING
