"""Host names as text."""

from __future__ import annotations

import re

_LONGEST = 253
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?", re.ASCII)


def is_one(text: str) -> bool:
    """Tells whether this can be a host name (RFC 1123 §2.1, with the underscores that Docker has in names).

    What ends with a number is a mistaken address.
    """
    labels = text.removesuffix(".").split(".")
    return len(text) <= _LONGEST and all(map(_LABEL.fullmatch, labels)) and not labels[-1].isdecimal()
