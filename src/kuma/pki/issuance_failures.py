"""Decides when to try an authority again that keeps failing. Pure: time is an argument."""

from __future__ import annotations

from datetime import datetime, timedelta

OPENS_AT = 10
"""Failures in a row after which an authority is spared."""
PAUSE = timedelta(seconds=30)


class Breaker:
    """Circuit breaker: after `OPENS_AT` failures in a row it allows one attempt per `PAUSE`."""

    def __init__(self) -> None:
        self._failures = 0
        self._next_attempt: datetime | None = None

    def allows(self, now: datetime) -> bool:
        """Tells whether an attempt may be made now; one that is let through delays the next."""
        if self._failures < OPENS_AT:
            return True
        if self._next_attempt is not None and now < self._next_attempt:
            return False
        self._next_attempt = now + PAUSE
        return True

    def failed(self, now: datetime) -> None:
        """Counts an attempt that has failed."""
        self._failures += 1
        if self._failures >= OPENS_AT:
            self._next_attempt = now + PAUSE

    def succeeded(self) -> None:
        """Forgets failures after an attempt that has succeeded."""
        self._failures, self._next_attempt = 0, None
