"""Decides which proxies run a mesh's position, which are waited for, and which are given up. Time is an argument.

A step needs everybody to run the present position; but a proxy that does not answer may hold a change up for a bounded
time only, however often it reconnects, and once in the whole change. Two things are never overruled by time: a proxy
that the control plane itself fails to serve, and a position that nobody at all has taken up; both are the step's fault.

Whoever acknowledges is taken to run a position a moment later: its worker threads may not have applied it before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from kuma.resources.models.last_contact import LastContact
from kuma.resources.models.mesh_transition import Position
from kuma.xds.envoy.node.workers import APPLIED_WITHIN


class Patience(NamedTuple):
    """Time limits of waiting: for a proxy that does not answer, and for one that has lost its connection."""

    answer: timedelta
    absence: timedelta


@dataclass(slots=True)
class ProxyProgress:
    """State of one Dataplane's proxy. `left` is since when it is not connected, if it is not."""

    left: datetime
    connected: bool = False
    runs: Position | None = None
    """The last position that it is known to run whole; None if that is not known."""
    applied_at: datetime | None = None
    """From when on all its worker threads are taken to do so; None if they have done so for long."""
    since: datetime | None = None
    """Since when it does not run what it should. Reconnecting does not begin this anew, nor does the next step."""
    last_contact: LastContact | None = None
    """What it may go on doing while it is not connected; None if it has ended."""
    unserved: bool = False
    """The control plane fails to issue its identity."""

    def joined(self, now: datetime) -> None:
        """Notes a new stream: the proxy runs what it ran before, which is unknown."""
        self.is_served(now)
        self.connected, self.runs, self.since = True, None, self.since or now
        self.last_contact = None

    def ran(self, position: Position, now: datetime) -> None:
        """Notes that the proxy has acknowledged all of a position."""
        if self.runs is not position and self.runs != position:
            self.applied_at = now + APPLIED_WITHIN
        self.runs, self.since, self.unserved = position, None, False

    def is_behind(self, position: Position, now: datetime) -> None:
        """Notes what another control plane says: the proxy does not run the position."""
        if self.runs == position:
            self.runs = None
        self.is_served(now)
        self.has_something_to_do(now)

    def lacks_identity(self, now: datetime) -> None:
        """Notes that the control plane fails to issue the proxy's identity, so that it cannot run the position."""
        self.runs, self.unserved, self.since = None, True, self.since or now

    def is_served(self, now: datetime) -> None:
        """Notes that the control plane serves the proxy again; from now on it has all its time to answer."""
        if self.unserved:
            self.unserved, self.since = False, now

    def has_something_to_do(self, now: datetime) -> None:
        """Notes that what the proxy should run has changed, or is not acknowledged yet."""
        self.since = self.since or now

    def gone(self, now: datetime, last_contact: LastContact | None = None) -> None:
        """Notes that the stream has ended. The proxy goes on running what it has."""
        self.is_served(now)
        self.connected, self.left = False, now
        self.last_contact = last_contact

    def given_up_at(self, patience: Patience) -> datetime | None:
        """Returns the time at which the proxy is given up; None if it runs what it should."""
        if self.since is None or self.unserved:
            return None
        answer = self.since + patience.answer
        return answer if self.connected else min(answer, self.left + patience.absence)

    def is_quiet(self, position: Position, now: datetime) -> bool:
        """Tells whether it is connected and runs the position, and whether time changes nothing about that."""
        applied = self.applied_at is None or self.applied_at <= now
        runs = self.runs is position or self.runs == position
        return self.connected and runs and applied and self.since is None and not self.unserved

    def is_out_of_contact(self, now: datetime, patience: Patience) -> bool:
        """Tells whether it is away for longer than it takes to come back, and may go on."""
        return self._may_go_on(now) and now >= self.left + patience.absence

    def _may_go_on(self, now: datetime) -> bool:
        return not self.connected and self.last_contact is not None and now < self.last_contact.may_serve_until

    def alarms(self, now: datetime, patience: Patience) -> Iterator[datetime]:
        """Returns when it is out of contact, and when it is no longer."""
        if self.last_contact is not None and self._may_go_on(now):
            yield from (self.left + patience.absence, self.last_contact.may_serve_until)


class Progress(NamedTuple):
    """Progress of a rollout. `look_again` is when it may change without any event."""

    settled: bool
    alone: bool
    everybody: bool
    waiting: tuple[str, ...]
    late: tuple[str, ...]
    out_of_contact: tuple[str, ...]
    look_again: datetime | None


def judge(
    proxies: Mapping[str, ProxyProgress], position: Position, now: datetime, patience: Patience, *, quiet: int = 0
) -> Progress:
    """Judges whether enough proxies run a position to go on from it, besides so many that are `quiet`.

    `settled`: nobody is waited for, somebody has taken it up, and so have all worker threads of whoever has. `alone`:
    there is nobody to be careful of. `everybody`: all run it, the ones that are not connected too, as far as is known.
    """
    behind = {name for name, f in proxies.items() if f.runs is not position and f.runs != position}
    ends = {name: proxy.given_up_at(patience) for name, proxy in proxies.items()}
    late = tuple(sorted(name for name, end in ends.items() if end is not None and end <= now))
    waiting = tuple(sorted(behind - set(late)))
    # Somebody has to show that the position can be taken up at all, or be away for so long that nobody is harmed.
    forgotten = [proxy.left + patience.answer for proxy in proxies.values() if not proxy.connected]
    alone = not quiet and len(forgotten) == len(proxies) and all(time <= now for time in forgotten)
    shown = quiet > 0 or any(proxy.connected and name not in behind for name, proxy in proxies.items())
    # Whoever is waited for acknowledges later than the others: only then does it matter when all have applied it.
    applied_at = max((p.applied_at for p in proxies.values() if p.applied_at is not None), default=now)
    applied = applied_at <= now
    contacts = [time for proxy in proxies.values() for time in proxy.alarms(now, patience)]
    times = (*ends.values(), *forgotten, *contacts, None if waiting else applied_at)
    alarms = [time for time in times if time is not None and time > now]
    return Progress(
        settled=not waiting and applied and (shown or alone),
        alone=alone,
        everybody=not behind and not late and applied,
        waiting=waiting,
        late=late,
        out_of_contact=tuple(sorted(name for name, p in proxies.items() if p.is_out_of_contact(now, patience))),
        look_again=min(alarms, default=None),
    )
