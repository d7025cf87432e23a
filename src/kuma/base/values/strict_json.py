"""The one reader of JSON from outside: what it lets through can be stored, and answered again as JSON in UTF-8."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any, NoReturn

DEEPEST = 64
"""Maps and lists within each other. A resource of ours needs about ten."""
MOST = 100_000
"""Values, about: what stands between commas, and maps and lists themselves. A resource of a megabyte has fewer."""
_CONTAINERS = frozenset({dict, list, tuple})  # tuples are what `!!pairs` of YAML makes


def loads(text: str | bytes, most: int = MOST) -> Any:
    """Parses JSON with a bounded number of values.

    Raises:
        ValueError: it is no JSON (RFC 8259: no NaN, no Infinity), says a name twice, is nested too deeply, has too
            many values, or holds half of a surrogate pair, which no encoding can carry. The text says which.
    """
    if _marks(text) > most:  # before anything is made of them: that takes a hundred times as long as counting
        raise ValueError(f"it has more than {most} values")
    try:
        found = json.loads(text, object_pairs_hook=named_once, parse_constant=_no_number, parse_float=_finite)
    except RecursionError:
        raise ValueError(f"nested deeper than {DEEPEST} levels") from None
    check(found, most)
    return found


def _marks(text: str | bytes) -> int:
    if isinstance(text, str):
        return sum(text.count(mark) for mark in ",[{")
    return sum(text.count(mark) for mark in (b",", b"[", b"{"))


def named_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Returns the map of these names and values.

    Raises:
        ValueError: a name is given twice.
    """
    found = dict(pairs)
    if len(found) != len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = next(name for name, count in counts.items() if count > 1)
        raise ValueError(f"{json.dumps(twice)} is given twice")
    return found


def _no_number(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number in JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits[:20]} is too large a number")
    return number


def check(value: Any, most: int = MOST) -> None:
    """Checks what was parsed, level by level rather than by recursion, which has a depth of its own.

    What is reached in several ways counts each time: an alias of YAML stands for all that it repeats, and a text of 300
    bytes for half a billion values.

    Raises:
        ValueError: it is nested too deeply, has too many values, or holds half of a surrogate pair.
    """
    # Exactly these types: parsers make no others. A body of a megabyte has 100,000 values, and is looked at in one go.
    level, depth, count = [value], 0, 0
    while level:
        _check_text("".join([found for found in level if type(found) is str]))
        inside = [found for found in level if type(found) in _CONTAINERS]
        if inside and depth == DEEPEST:
            raise ValueError(f"nested deeper than {DEEPEST} levels")
        count += sum(map(len, inside))
        if count > most:  # before they are put into one list
            raise ValueError(f"it has more than {most} values")
        lists = [(*found, *found.values()) if type(found) is dict else found for found in inside]
        level, depth = [inner for found in lists for inner in found], depth + 1


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"\\u{ord(text[error.start]):04x} is half of a surrogate pair, and no character") from None
