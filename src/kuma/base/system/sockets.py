"""Sockets that listen, and the addresses that they can have."""

from __future__ import annotations

import socket

from kuma.base import aio


class OnPort:
    """Something that listens on one port: the given one, or with 0 one that the system chooses."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._bound: aio.Latest[int] = aio.Latest(0)

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
