"""Times and durations as people read them. Pure: now is an argument."""

from __future__ import annotations

from datetime import datetime

_STEPS = ((60, 1, "s"), (3600, 60, "m"), (86400, 3600, "h"), (365 * 86400, 86400, "d"))


def duration(seconds: float) -> str:
    """Formats a duration in its greatest unit; `never` for a negative one."""
    whole = int(seconds)
    if whole < -1:
        return "never"
    for limit, unit, letter in _STEPS:
        if whole < limit:
            return f"{max(whole, 0) // unit}{letter}"
    return f"{whole // (365 * 86400)}y"


def ago(time: str | None, now: datetime) -> str:
    """Formats the time since an instant; `never` if there is none."""
    return duration((now - instant(time)).total_seconds()) if time else "never"


def date(time: str | None) -> str:
    """A time in the local time zone, which is named by its distance from UTC; `-` if there is none."""
    return instant(time).astimezone().isoformat(" ", "seconds") if time else "-"


def original_date(time: str | None) -> str:
    """A time as the original writes it: in the local time zone, which it does not name; `-` if there is none."""
    return instant(time).astimezone().strftime("%Y-%m-%d %H:%M:%S") if time else "-"


def ends(time: str | None, now: datetime) -> str:
    """Formats how long something holds yet, such as `in 29d`."""
    if not time:
        return "-"
    left = (instant(time) - now).total_seconds()
    return f"in {duration(left)}" if left > 0 else f"{duration(-left)} ago"


def instant(text: str) -> datetime:
    """Reads a time as the API writes it."""
    return datetime.fromisoformat(text)
