"""The audit record: who changed what, and every credential that was issued. Append-only, one JSON object a line.

What has happened has happened: a record that cannot be written stops nothing. What it lacks is in the log, as an error,
and it says how much that is as soon as it can be written again.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Protocol

import structlog

from kuma.base.clock import Clock
from kuma.base.errors import Misconfigured
from kuma.base.values import addresses
from kuma.base.values.rate_limit import Buckets, Rate

log = structlog.get_logger(__name__)

CONTROL_PLANE = "mesh-system:control-plane"
ACTOR: ContextVar[str] = ContextVar("actor", default=CONTROL_PLANE)
"""On whose behalf this task works; the control plane itself unless somebody asked for it."""


class Audit(Protocol):
    """Takes notes of what has happened."""

    def record(self, event: str, **fields: object) -> None:
        """Note an event that has happened. Fields hold no secrets."""
        ...


class AuditFile:
    """Appends to a file that only its owner may read. Each line is written at once, so that lines never mix."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._clock = clock
        self._torn = False
        self._lost = 0
        """How many events are in the log only."""
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # What has taken its place, such as a pipe that nobody reads, keeps nothing waiting.
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
            self._file = os.open(path, flags, 0o600)
        except OSError as error:
            raise Misconfigured(f"cannot write the audit record {path}: {error.strerror}") from None

    def record(self, event: str, **fields: object) -> None:
        """Note an event; in the log if the file cannot be written, such as on a full disk."""
        line = {"time": self._clock.now().isoformat(), "event": event, "actor": ACTOR.get(), **fields}
        try:
            if self._torn:  # the last line is not whole: this one must not be lost with it
                self._write(b"\n")
                self._torn = False
            if self._lost:
                self._write(
                    _encoded(
                        {"time": line["time"], "event": "not recorded", "actor": CONTROL_PLANE, "events": self._lost}
                    )
                )
                self._lost = 0
            self._write(_encoded(line))
        except OSError as error:
            self._lost += 1
            log.error("not in the audit record", reason=error.strerror, lost=self._lost, line=line)

    def _write(self, content: bytes) -> None:
        """Writes the whole line or raises: a full disk may take only a part."""
        written = os.write(self._file, content)
        if written < len(content):
            self._torn = written > 0
            raise OSError(errno.ENOSPC, "the audit record could not be written whole")

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def _encoded(line: Mapping[str, object]) -> bytes:
    """Returns a line of JSON. What a terminal would obey, or turn around, is escaped: people look at the file, too."""
    text = json.dumps(line, ensure_ascii=False, default=str)
    if not text.isprintable():
        text = "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in text)
    return text.encode(errors="replace") + b"\n"


class NoAudit:
    """Takes no notes."""

    def record(self, event: str, **fields: object) -> None:
        """Passes the event over."""


_REFUSALS = Rate(1, 100)
"""Refusals of one address, or network of IPv6, that are recorded: whoever is refused must not fill the disk."""


class Refusals:
    """Notes who was refused, up to a limit for each address; those above it are counted in the next note."""

    def __init__(self, audit: Audit, clock: Clock) -> None:
        self._audit = audit
        self._clock = clock
        self._buckets = Buckets(_REFUSALS)
        self._passed_over = 0

    def record(self, address: str, **fields: object) -> None:
        """Note that somebody at `address` was refused."""
        if self._buckets.take(addresses.holder_of_peer(address), self._clock.now()):
            self._passed_over += 1
            return
        more = {"notRecorded": self._passed_over} if self._passed_over else {}
        self._passed_over = 0
        self._audit.record("refused", address=address, **fields, **more)
