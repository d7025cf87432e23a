"""Durations as users write them: a whole number and one unit, as in `30d` or `10y`."""

from __future__ import annotations

import re
from datetime import timedelta

_UNITS = {
    "y": timedelta(days=365),
    "w": timedelta(weeks=1),
    "d": timedelta(days=1),
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
    "ms": timedelta(milliseconds=1),
}
_PATTERN = re.compile(r"([0-9]{1,18})(y|w|d|h|m|s|ms)", re.ASCII)
_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?s", re.ASCII)
_GO_PART = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)(ms|h|m|s)", re.ASCII)
EXAMPLE = 'a number and a unit, such as "30d"'
LONGEST = timedelta(days=100 * 365)
"""No certificate of ours is asked to live longer; also keeps dates within the calendar."""


class MalformedDuration(ValueError):
    """A text that is no duration at all, rather than one out of range."""


def parse_duration(text: str) -> timedelta:
    """Returns the time that `text` stands for.

    Raises:
        MalformedDuration, ValueError: not one number with one unit, not above zero, or above a hundred years; the
            text says which.
    """
    match = _PATTERN.fullmatch(text)
    if match is None:
        raise MalformedDuration(
            f'has to be one whole number and one unit of y, w, d, h, m, s, ms, such as "30d"; got "{text}"'
        )
    number, unit = int(match[1]), _UNITS[match[2]]
    if number == 0:
        raise ValueError("has to be longer than 0")
    if number > LONGEST / unit:
        raise ValueError('cannot be longer than "100y"')
    return number * unit


def parse_go_duration(text: str) -> timedelta:
    """Returns a duration as Go's clients write it: numbers with units h, m, s, ms, such as `720h0m0s` or `1.5h`.

    Raises:
        ValueError: another form, or not above zero.
    """
    parts = _GO_PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f'has to be numbers with units h, m, s or ms, such as "24h" or "1h30m"; got "{text[:100]}"')
    seconds = sum(float(number) * _UNITS[unit].total_seconds() for number, unit in parts)
    if seconds > LONGEST.total_seconds() or not timedelta(seconds=seconds):
        raise ValueError("has to be longer than 0 and at most 100 years")
    return timedelta(seconds=seconds)


def parse_timeout(text: str) -> timedelta:
    """Returns the protobuf JSON form of a duration: seconds with an `s`, as in `5s` or `1.5s`.

    Raises:
        ValueError: another form, or zero, as is what has no whole microsecond.
    """
    if _SECONDS.fullmatch(text) is None or not timedelta(seconds=float(text[:-1])):
        raise ValueError(f'has to be a number of seconds above 0 that ends in "s", such as "5s"; got "{text}"')
    return timedelta(seconds=float(text[:-1]))
