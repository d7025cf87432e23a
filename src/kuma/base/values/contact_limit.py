"""For how long a proxy may serve without the control plane, as its node says, and how Envoy itself keeps to that.

What it listens by is sent with a time for which it holds (the TTL of xDS), and again before that is over. Envoy counts
it, so it ends also while nothing that was started beside Envoy runs.
"""

from __future__ import annotations

import math
from typing import Any

LIMIT = "kuma.io/contact-timeout"
"""The key of the node's metadata under which that stands, in seconds."""
_LATER = 15.0
"""Seconds by which this is more patient than kuma-dp, and its guard, which let end what is open."""
_LONGEST = 10 * 365 * 86400.0
_TIMES = 4
"""How often what holds is sent again while it does."""
_FIRST = 5.0
"""Seconds of a stream after which it is sent again, whenever that was done last."""


def holds_for(said: Any) -> float:
    """Returns for how many seconds what a proxy listens by is to hold; 0 if for ever.

    The contact may be lost just before it would be sent again, and the proxy may serve for its whole limit then.
    """
    is_number = isinstance(said, float | int) and not isinstance(said, bool)
    if not is_number or not math.isfinite(said) or said <= 0:
        return 0.0
    return (min(float(said), _LONGEST) + _LATER) * _TIMES / (_TIMES - 1)


def first_renewal(holds: float) -> float:
    """Returns after how many seconds of a stream it is sent again: it may hold for `_LATER` yet when that begins."""
    return min(_FIRST, renewal(holds))


def renewal(holds: float) -> float:
    """Returns how many seconds later it is sent again."""
    return holds / _TIMES
