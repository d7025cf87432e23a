"""The audit record: who changed what, and every credential that was issued. Append-only, one JSON object a line."""

from __future__ import annotations

import json
import os
from contextvars import ContextVar
from pathlib import Path
from typing import Protocol

from kuma.base.clock import Clock
from kuma.base.errors import Misconfigured

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
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise Misconfigured(f"cannot write the audit record {path}: {error.strerror}") from None

    def record(self, event: str, **fields: object) -> None:
        """Note an event.

        Raises:
            OSError: it cannot be written; what cannot be recorded should not go unnoticed.
        """
        line = {"time": self._clock.now().isoformat(), "event": event, "actor": ACTOR.get(), **fields}
        os.write(self._file, json.dumps(line, ensure_ascii=False, default=str).encode() + b"\n")

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)
