"""Reads the audit record line by line, the newest first. Pure."""

from __future__ import annotations

import heapq
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

_OWN_FIELDS = ("time", "event", "actor")
_LONGEST_VALUE = 300
"""Characters of a value that are told; what is longer ends with an ellipsis, as on the page."""


class Event(NamedTuple):
    """One event: when, what, on whose behalf, and what else is said of it."""

    time: str
    event: str
    actor: str
    more: tuple[tuple[str, str], ...]
    instance: str = ""
    """The control plane that has recorded it."""


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


def merged(own: Sequence[Event], others: Sequence[Event], most: int) -> list[Event]:
    """Returns the newest events of all, the newest first. Those of one control plane stay in their order.

    A line without a time is as new as the one that was recorded before it, so it stays beside that.
    """
    by_instance: dict[str, list[Event]] = {}
    for event in (*own, *others):
        by_instance.setdefault(event.instance, []).append(event)
    streams = [list(_timed(events)) for events in by_instance.values()]
    return [event for _, event in itertools.islice(heapq.merge(*streams, key=lambda one: one[0], reverse=True), most)]


def _timed(newest_first: Sequence[Event]) -> Iterator[tuple[str, Event]]:
    """Yields events with times that never go forward: clocks may have been set back."""
    latest = "~"  # greater than any time
    for event in newest_first:
        latest = min(latest, event.time or latest)
        yield latest, event


def tellable(events: Sequence[Event], largest: int) -> list[Any]:
    """Returns events as JSON has them, for another control plane: as many, the newest first, as `largest` allows."""
    told, size = [], 0
    for event in events:
        more = [[name, _shortened(value)] for name, value in event.more]
        one = [event.time, event.event, event.actor, more]
        size += len(json.dumps(one))
        if size > largest:
            break
        told.append(one)
    return told


def told(found: Sequence[Any], instance: str) -> list[Event]:
    """Returns the events that another control plane has told."""
    return [
        Event(time, event, actor, tuple((name, value) for name, value in more), instance)
        for time, event, actor, more in found
    ]


def _shortened(value: str) -> str:
    return value if len(value) <= _LONGEST_VALUE else f"{value[: _LONGEST_VALUE - 1]}…"
