"""The log of a process that goes on: structured, on standard error."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import Any

import structlog

from kuma.base.values import addresses
from kuma.base.values.printable import LINES, printable
from kuma.base.values.rate_limit import Buckets, Rate

_OF_A_PEER = Rate(1, 100)
"""Lines of one kind about one address, or network of IPv6: whoever connects, known or not, must not fill the disk."""


def log_as(level: str, form: str) -> None:
    """Log to standard error from `level` upwards, for people (`console`) or machines (`json`)."""
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
            _shown,
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
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
