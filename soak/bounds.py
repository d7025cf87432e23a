"""Bounds within which open connections end once what allowed them has ended. Pure; times are the monotonic clock's."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

BUSY = 5.0
"""Seconds that a busy machine may take on top of a bound, until an end is seen."""
DRAIN = 10.0
"""Seconds in which what is drained has ended: KUMA_XDS_SERVER_CONNECTION_DRAIN."""
LINGER = 30.0
"""Seconds that a connection may outlive a leaf: KUMA_XDS_SERVER_CONNECTION_LINGER."""
REFUSAL = 5.0
"""Seconds in which what a permission allowed has ended: --drain-time-s of kuma-dp's Envoy."""


class Span(NamedTuple):
    """From when until when a connection was open; without an end it still is."""

    opened: float
    ended: float = math.inf


class Bound(NamedTuple):
    """What was opened in a time has to end by another, or at an age, in seconds, whichever comes first."""

    why: str
    opened_from: float
    opened_before: float
    end: float = math.inf
    age: float = math.inf

    def overstays(self, span: Span, now: float) -> bool:
        """Tells whether a connection was, or is, open for longer."""
        is_meant = self.opened_from <= span.opened < self.opened_before
        return is_meant and min(span.ended, now) > min(self.end, span.opened + self.age)

    def is_over(self, now: float) -> bool:
        """Tells whether all that it concerns should have ended."""
        return now > min(self.end, self.opened_before + self.age)


def cut(spans: Iterable[Span], begin: float, end: float) -> int:
    """Counts the connections that were open when a time began, and ended within it."""
    return sum(span.opened < begin <= span.ended < end for span in spans)
