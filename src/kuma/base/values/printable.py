"""Makes foreign text safe to print."""

from __future__ import annotations

LINES = "\n\t"
"""What is kept of texts that are lines."""


def printable(text: str, *, keep: str = "") -> str:
    """`text` with `?` for what a terminal would obey rather than show, except for the characters in `keep`."""
    return "".join(char if char.isprintable() or char in keep else "?" for char in text)
