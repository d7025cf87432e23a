"""What a worker and its parent tell each other: a line each, over a pair of sockets. Its end tells that one is gone."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import structlog

log = structlog.get_logger(__name__)

PREPARED = b"prepared\n"
"""A worker has opened the store, and could begin to serve."""
BEGIN = b"begin\n"
"""It may: the first of them waits, or it would be given all connections that wait."""
READY = b"ready\n"
"""It serves."""
ASKED = b"are you there\n"
"""The parent asks whether a worker's loop turns."""
HERE = b"here\n"
"""It does."""


class Link:
    """One end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, end: socket.socket) -> Link:
        """Opens this end of a pair of sockets."""
        return cls(*await asyncio.open_connection(sock=end))

    def tell(self, line: bytes) -> None:
        """Tell the other side something; nothing if it is gone, which `heard` tells."""
        if not self._writer.is_closing():
            self._writer.write(line)

    async def heard(self) -> AsyncIterator[bytes]:
        """Yields what the other side tells, until it is gone."""
        with contextlib.suppress(ConnectionError):
            while line := await self._reader.readline():
                yield line

    def close(self) -> None:
        """Close this end."""
        self._writer.close()


class ToParent:
    """A worker's end."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._may_begin = asyncio.Event()

    async def begin(self) -> None:
        """Tell that this worker is prepared, and return when it may begin."""
        self._link.tell(PREPARED)
        await self._may_begin.wait()

    def tell_ready(self) -> None:
        """Tell that this worker serves."""
        self._link.tell(READY)

    async def lost(self) -> None:
        """Listen and answer, and return when the parent is gone."""
        async for line in self._link.heard():
            if line == BEGIN:
                self._may_begin.set()
            elif line == ASKED:
                self._link.tell(HERE)
        log.error("the process that has started this worker is gone, so it ends, too")
