"""Numbers of things as people read them."""

from __future__ import annotations


def counted(number: int, one: str, more: str = "") -> str:
    """Returns a number with what is counted: `1 caller`, `1,200 callers`; `more` is the plural where it is no `s`."""
    return f"{number:,} {one if number == 1 else more or one + 's'}"
