"""ObservedTraffic: who has called a Dataplane, and how, as its proxy reports. Written by the control plane only."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

from kuma.resources.resource import Model

How = Literal["meshTls", "foreignTls", "plaintext"]
"""How a caller came: by mutual TLS of the mesh, by a TLS of its own, in plaintext."""
Outcome = Literal["allowed", "refused", "wouldBeRefused", "unchecked"]
"""`wouldBeRefused`: allowed, but by a rule in shadow mode. `unchecked`: in plaintext, which proxies of the mesh were
sending at that time too."""
HOUR = timedelta(hours=1)
HOURS = 24
"""Hours for which connections are counted one by one."""


class Edge(Model):
    """Connections of one kind, of callers that show the same, to one inbound.

    `uris` are those of the caller's certificate; `address` is where callers without one came from. `hours` counts the
    connections in the hour of `last`, in the one before, and so on: hours of the day in UTC.
    """

    service: str
    port: int
    how: How
    outcome: Outcome
    first: datetime
    last: datetime
    uris: tuple[str, ...] = ()
    address: str = ""
    reason: str = ""
    """Why its handshake has failed, if it has."""
    connections: int = 0
    hours: tuple[int, ...] = ()

    def since(self, start: datetime) -> int:
        """Returns how many connections there were in the hours that have not ended by `start`."""
        newest = hour(self.last)
        return sum(count for index, count in enumerate(self.hours) if newest - index * HOUR > start - HOUR)


class ObservedTrafficSpec(Model):
    """Callers of one Dataplane. `since` is when its proxy began to report; `forgotten` counts what found no room."""

    since: datetime
    edges: tuple[Edge, ...] = ()
    forgotten: int = 0
    clock_ahead_seconds: int = 0
    """How far the clock of its machine goes ahead, negative if it is behind; 0 if that is not worth to be told."""


def hour(time: datetime) -> datetime:
    """Returns when the hour of a time has begun."""
    return time.replace(minute=0, second=0, microsecond=0)
