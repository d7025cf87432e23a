"""Counts connections by who has opened them to where. Pure: time is an argument.

Bounded for each proxy: of the callers that it has too many of, those are forgotten that have not called the longest.
Callers without an identity have a room of their own, so that whoever calls from many addresses hides nobody else.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

from kuma.resources.models.observed_traffic import HOUR, HOURS, Edge, How, ObservedTrafficSpec, Outcome, hour

KNOWN = {True: 256, False: 128}
"""Edges of one proxy that are kept: of callers with mesh TLS, and of others."""
KEPT_FOR = timedelta(days=30)


class CallerEdge(NamedTuple):
    """A caller, with where and how it calls: what is counted together."""

    service: str
    port: int
    how: How
    outcome: Outcome
    uris: tuple[str, ...] = ()
    address: str = ""
    reason: str = ""


@dataclass(slots=True)
class Count:
    """Connections of one caller; `hours` by the beginning of each."""

    first: datetime
    last: datetime
    connections: int = 0
    hours: dict[datetime, int] = field(default_factory=dict)


class Edges:
    """The callers of one proxy."""

    def __init__(self, since: datetime) -> None:
        self.since = since
        self.forgotten = 0
        self.clock_ahead_seconds: int | None = None
        """As it was told last; None if nothing was."""
        self._counts: dict[CallerEdge, Count] = {}

    def note(self, caller: CallerEdge, time: datetime, connections: int) -> None:
        """Counts connections at a time, none if it is only known that one goes on."""
        before = self._counts.pop(caller, None)
        count = before or Count(time, time)
        self._counts[caller] = count  # the last one is who has called last
        count.first, count.last = min(count.first, time), max(count.last, time)
        count.connections += connections
        if connections:
            began = hour(time)
            count.hours[began] = count.hours.get(began, 0) + connections
            if len(count.hours) > HOURS:
                del count.hours[min(count.hours)]
        if before is None:
            self._bound()

    def _bound(self) -> None:
        for mutual, room in KNOWN.items():
            kept = [caller for caller in self._counts if (caller.how == "meshTls") is mutual]
            for caller in kept[: max(0, len(kept) - room)]:
                del self._counts[caller]
                self.forgotten += 1

    def add(self, spec: ObservedTrafficSpec) -> None:
        """Adds what was counted elsewhere, or before."""
        self.since = min(self.since, spec.since)
        self.forgotten += spec.forgotten
        self.clock_ahead_seconds = spec.clock_ahead_seconds
        for edge in sorted(spec.edges, key=lambda edge: edge.last):
            caller = caller_of(edge)
            count = self._counts.setdefault(caller, Count(edge.first, edge.last))
            count.first, count.last = min(count.first, edge.first), max(count.last, edge.last)
            count.connections += edge.connections
            newest = hour(edge.last)
            for index, number in enumerate(edge.hours):
                if number:
                    count.hours[newest - index * HOUR] = count.hours.get(newest - index * HOUR, 0) + number
        self._counts = dict(sorted(self._counts.items(), key=lambda item: item[1].last))
        self._bound()

    def spec(self, now: datetime) -> ObservedTrafficSpec:
        """Returns what is known, without those who have not called for very long."""
        kept = ((caller, count) for caller, count in self._counts.items() if count.last > now - KEPT_FOR)
        ahead = self.clock_ahead_seconds or 0
        return ObservedTrafficSpec(
            since=self.since, edges=tuple(_edges(kept)), forgotten=self.forgotten, clock_ahead_seconds=ahead
        )


def caller_of(edge: Edge) -> CallerEdge:
    """Returns who is counted by an edge."""
    return CallerEdge(edge.service, edge.port, edge.how, edge.outcome, edge.uris, edge.address, edge.reason)


def together(specs: Iterable[ObservedTrafficSpec], now: datetime) -> ObservedTrafficSpec:
    """Returns what several have counted of one proxy, of whom the last has heard of it last."""
    found = Edges(now)
    for spec in specs:
        found.add(spec)
    return found.spec(now)


def _edges(counts: Iterable[tuple[CallerEdge, Count]]) -> Iterable[Edge]:
    for caller, count in counts:
        newest = hour(count.last)
        numbers = [count.hours.get(newest - index * HOUR, 0) for index in range(HOURS)]
        while numbers and not numbers[-1]:
            numbers.pop()
        yield Edge(
            **caller._asdict(), first=count.first, last=count.last, connections=count.connections, hours=tuple(numbers)
        )
