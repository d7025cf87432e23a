"""Reads the audit record line by line, the newest first. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

_OWN_FIELDS = ("time", "event", "actor")


class Event(NamedTuple):
    """One event: when, what, on whose behalf, and what else is said of it."""

    time: str
    event: str
    actor: str
    more: tuple[tuple[str, str], ...]


def events(newest_first: Iterable[bytes | None], asked: str, longest: int) -> Iterator[Event]:
    """Yields the events that have every word of `asked` in them; a line that is torn is passed over.

    None stands for a line of more than `longest` bytes; nobody searches it, so it is told when nothing is asked for.
    """
    words = asked.lower().split()
    for line in newest_first:
        if line is None:
            if not words:
                yield Event("", f"not shown: a line of more than {longest:,} bytes", "", ())
            continue
        text = line.decode(errors="replace")
        lowered = text.lower() if words else ""
        if not all(word in lowered for word in words):
            continue
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict):
            yield _event(found)


def _event(found: dict[str, Any]) -> Event:
    more = tuple((name, _plain(value)) for name, value in found.items() if name not in _OWN_FIELDS and value != "")
    time, event, actor = (str(found.get(name, "")) for name in _OWN_FIELDS)
    return Event(time, event, actor, more)


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
