"""The log of a process that goes on: structured, on standard error."""

from __future__ import annotations

import atexit
import logging
import os
import select
import sys
import threading
from datetime import UTC, datetime
from typing import Any

import structlog

from kuma.base.values import addresses
from kuma.base.values.printable import LINES, printable
from kuma.base.values.rate_limit import Buckets, Rate

_OF_A_PEER = Rate(1, 100)
"""Lines of one kind about one address, or network of IPv6: whoever connects, known or not, must not fill the disk."""


class Output:
    """Writes the log to a file, pipe or terminal, which ends nothing and keeps nothing waiting.

    On a full disk, or when whoever reads a pipe does not, lines wait for room in memory, and those for which that has
    none are lost, which the next one that can be written says.
    """

    def __init__(self, descriptor: int, *, room: int = 1 << 20) -> None:
        """Writes to an open file; `room` is for so many bytes that wait."""
        self._descriptor = descriptor
        self._room = room
        self._waiting = bytearray()
        self._lost = 0
        self._lock = threading.Lock()
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)

    def write(self, line: str) -> None:
        """Write a line, or keep it until there is room for it."""
        self.pass_on(line.encode(errors="replace") + b"\n")

    def pass_on(self, content: bytes) -> None:
        """Write what others have written, as `write` does: all of it, or nothing."""
        with self._lock:
            self._write(0)
            if self._waiting and len(self._waiting) + len(content) > self._room:
                self._lost += content.count(b"\n")
                return
            self._waiting += content
            self._write(0)

    debug = info = warning = error = critical = write

    def lost(self) -> int:
        """Returns how many lines have been lost since it was asked last; none while others wait."""
        with self._lock:
            self._write(0)
            found = 0 if self._waiting else self._lost
            self._lost -= found
            return found

    def finish(self, seconds: float = 1.0) -> None:
        """Write what waits, if there is room for it in time."""
        with self._lock:
            self._write(seconds)

    def _write(self, seconds: float) -> None:
        """Writes by pieces for which a pipe that can be written to has room: a longer one could wait for its reader."""
        try:
            while self._waiting and self._poll.poll(seconds * 1000):
                del self._waiting[: os.write(self._descriptor, self._waiting[: select.PIPE_BUF])]
        except OSError:
            return  # it is tried again with the next line


STANDARD_ERROR = Output(os.open(os.devnull, os.O_WRONLY) if sys.stderr is None else 2)
"""Of a process that was started without one, nothing: what is opened next must not get the log under its number."""
atexit.register(STANDARD_ERROR.finish)


def log_as(level: str, form: str, output: Output = STANDARD_ERROR) -> None:
    """Log from `level` upwards, for people (`console`) or machines (`json`), by default to standard error."""

    def with_losses(_: Any, __: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
        lost = output.lost()
        return {**line, "lines_lost": lost} if lost else line

    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # it warns of each request that is no HTTP
    renderer: structlog.types.Processor = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    if form == "json":
        renderer = structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            LimitedPeers(),
            with_losses,
            _shown,
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=lambda *_: output,
    )


class LimitedPeers:
    """Leaves lines about a `peer` out that come too often; how many those were is told in the next one."""

    def __init__(self) -> None:
        self._buckets = Buckets(_OF_A_PEER)
        self._left_out = 0

    def __call__(self, _: Any, __: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
        """Returns the line.

        Raises:
            DropEvent: it is left out.
        """
        if "peer" not in line:
            return line
        holder = addresses.holder_of_peer(str(line["peer"]).rpartition(":")[0])
        if self._buckets.take((line["event"], holder), datetime.now(UTC)):
            self._left_out += 1
            raise structlog.DropEvent
        if self._left_out:
            line["left_out"], self._left_out = self._left_out, 0
        return line


def _shown(_: Any, __: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Commands no terminal: texts come from whoever connects, too. Line breaks are quoted by what renders the line."""
    return {name: printable(value, keep=LINES) if isinstance(value, str) else value for name, value in line.items()}
