"""Times as people read them. Pure: now is an argument."""

from __future__ import annotations

from datetime import datetime, timedelta

_UNITS = (
    (timedelta(days=730), timedelta(days=365), "years"),
    (timedelta(days=2), timedelta(days=1), "days"),
    (timedelta(hours=2), timedelta(hours=1), "hours"),
    (timedelta(minutes=2), timedelta(minutes=1), "minutes"),
)


def length(span: timedelta) -> str:
    """Formats a span in its greatest unit of which there are at least two."""
    for least, unit, name in _UNITS:
        if span >= least:
            return f"{span // unit} {name}"
    seconds = max(0, int(span.total_seconds()))
    return "1 second" if seconds == 1 else f"{seconds} seconds"


def distance(time: datetime | None, now: datetime) -> str:
    """Formats how far away an instant is: `in 29 days`, `5 minutes ago`; `never` if there is none."""
    if time is None:
        return "never"
    return f"in {length(time - now)}" if time > now else f"{length(now - time)} ago"


def whole(time: datetime | None) -> str:
    """Formats an instant in UTC, to the second."""
    return f"{time:%Y-%m-%d %H:%M:%S} UTC" if time else "never"
