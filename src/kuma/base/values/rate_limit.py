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


class Bucket:
    """A token bucket of one client."""

    __slots__ = ("_level", "_rate", "_since")

    def __init__(self, rate: Rate, now: datetime) -> None:
        self._rate = rate
        self._level = float(rate.burst)
        self._since = now

    def take(self, now: datetime) -> float:
        """Count one more: 0 if it is within the limit, else the seconds to wait until it would be."""
        elapsed = max(0.0, (now - self._since).total_seconds())
        level = min(float(self._rate.burst), self._level + elapsed * self._rate.per_second)
        allowed = level >= 1
        self._level, self._since = level - 1 if allowed else level, now
        return 0.0 if allowed else (1 - level) / self._rate.per_second


class Buckets:
    """A token bucket for each client."""

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._buckets: OrderedDict[Hashable, Bucket] = OrderedDict()

    def take(self, client: Hashable, now: datetime) -> float:
        """Count one more of `client`: 0 if it is within the limit, else the seconds to wait until it would be."""
        bucket = self._buckets.pop(client, None) or Bucket(self._rate, now)
        self._buckets[client] = bucket
        if len(self._buckets) > _REMEMBERED:
            self._buckets.popitem(last=False)
        return bucket.take(now)
