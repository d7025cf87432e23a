"""Reads the settings again while the control plane runs, and takes up those that may change then."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import structlog

from kuma.app.configuration.settings import Settings
from kuma.app.configuration.settings_file import load
from kuma.base import logs
from kuma.base.errors import Misconfigured

log = structlog.get_logger(__name__)

TAKEN_UP = ("general.logLevel", "general.logFormat")
"""What takes effect at once; files of certificates and CAs are followed anyway."""


class Reloading:
    """Takes up the log's level and form; names what else has changed, and takes effect at the next start only."""

    def __init__(self, running: Settings, file: Path | None, level: str | None) -> None:
        """`running` are the settings in effect, of `file` and the environment; `level` wins over theirs, if given."""
        self._running = _flat(running.model_dump(by_alias=True))
        self._file = file
        self._level = level

    def __call__(self) -> None:
        """Read them now. What cannot be read or is wrong is told, and everything stays as it is."""
        try:
            fresh = load(self._file)
        except Misconfigured as error:
            log.error("the settings are not taken up: those that run stay in effect", reason=str(error))
            return
        logs.log_as(self._level or fresh.general.log_level, fresh.general.log_format)
        found = _flat(fresh.model_dump(by_alias=True))
        changed = {name for name in found.keys() | self._running.keys() if found.get(name) != self._running.get(name)}
        waiting = sorted(changed - set(TAKEN_UP))
        if waiting:
            log.warning("settings have changed that take effect at the next start only", settings=waiting)
        log.info("the settings have been read again", level=self._level or fresh.general.log_level)


def _flat(data: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    return dict(_leaves(data, before))


def _leaves(data: Mapping[str, Any], before: str) -> Iterator[tuple[str, Any]]:
    for name, value in data.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value
