"""Sockets that listen, and the addresses that they can have."""

from __future__ import annotations

import socket
from collections.abc import Callable

from kuma.base import aio
from kuma.base.errors import Misconfigured
from kuma.base.values import urls

BACKLOG = 1024
"""Connections that may wait to be accepted: a whole mesh comes back at once after a restart."""
Listen = Callable[[str, int, str], socket.socket]
"""Host, port, and the setting that says the port -> a socket that listens there; the caller closes it."""


def listening(host: str, port: int, setting: str) -> socket.socket:
    """Returns a socket of our own that listens at `host`:`port`.

    Raises:
        Misconfigured: it cannot, because the port is in use, say; names the setting.
    """
    try:
        found = bound(host, port)
        found.listen(BACKLOG)
        found.setblocking(False)
    except OSError as error:
        raise Misconfigured(
            f"cannot listen on {urls.host_port(host, port)}: {error.strerror}. "
            f"Stop the other program, or set {setting} to another port"
        ) from None
    return found


class OnPort:
    """Something that listens on one port: the given one, or with 0 one that the system chooses."""

    def __init__(self, host: str, port: int, setting: str, listen: Listen = listening) -> None:
        """`setting` says the port; `listen` makes the socket."""
        self._host = host
        self._port = port
        self._setting = setting
        self._make = listen
        self._bound: aio.Latest[int] = aio.Latest(0)

    def _listen(self) -> socket.socket:
        return self._make(self._host, self._port, self._setting)

    @property
    def bound(self) -> int:
        """The port that is listened on, or will be; 0 if that is not known yet."""
        return self._bound.value or self._port

    async def port(self) -> int:
        """Returns the port that is listened on, once it is."""
        if not self._bound.value:
            await self._bound.newer_than(0)
        return self._bound.value


def is_own(address: str) -> bool:
    """Tells whether this machine has this IP address, by binding a socket to it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as tried:
            tried.bind((address, 0))
    except OSError:
        return False
    return bool(address)


def bound(host: str, port: int) -> socket.socket:
    """Returns a TCP socket that is bound to `host`:`port`; the caller closes it.

    Raises:
        OSError: it cannot be, because somebody else listens there, say.
    """
    found = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        # Connections of an earlier listener that are still fading away are no obstacle; a listener is.
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
    except OSError:
        found.close()
        raise
    return found
