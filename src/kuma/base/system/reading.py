"""Reading from many connections into memory that all of them share.

For each read asyncio takes a quarter of a megabyte, and gives back what was not needed: that takes longer than to read
the few hundred bytes that most messages have.
"""

from __future__ import annotations

import asyncio

_SIZE = 64 * 1024
"""Bytes that are read at a time."""


def room() -> memoryview:
    """Returns memory for all connections of one loop: what it has is taken out before anybody reads again."""
    return memoryview(bytearray(_SIZE))


class Reading(asyncio.BufferedProtocol):
    """A protocol that is given bytes, as one that is not buffered."""

    def __init__(self, room: memoryview) -> None:
        self._room = room

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._room

    def buffer_updated(self, nbytes: int) -> None:
        self.received(bytes(self._room[:nbytes]))

    def received(self, data: bytes) -> None:
        """Is called with what has come."""
        raise NotImplementedError
