"""Limits on how often and how many at once, for each of many clients. Pure: time is an argument."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from datetime import datetime

_REMEMBERED = 10_000
"""How many clients are told apart; who has not been seen the longest is forgotten, and starts anew."""


@dataclass(frozen=True, slots=True)
class Rate:
    """Rate of a token bucket: so many a second in the long run, and `burst` at once."""

    per_second: float
    burst: int


class Buckets:
    """A token bucket for each client."""

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._levels: OrderedDict[Hashable, tuple[float, datetime]] = OrderedDict()

    def take(self, client: Hashable, now: datetime) -> float:
        """Count one more of `client`: 0 if it is within the limit, else the seconds to wait until it would be."""
        level, since = self._levels.pop(client, (float(self._rate.burst), now))
        elapsed = max(0.0, (now - since).total_seconds())
        level = min(float(self._rate.burst), level + elapsed * self._rate.per_second)
        allowed = level >= 1
        self._levels[client] = (level - 1 if allowed else level, now)
        if len(self._levels) > _REMEMBERED:
            self._levels.popitem(last=False)
        return 0.0 if allowed else (1 - level) / self._rate.per_second
