"""Cuts lists into pages. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

SIZE = 50
T = TypeVar("T")


class Page(NamedTuple, Generic[T]):
    """A page of a list, and how long the list is."""

    items: Sequence[T]
    total: int
    page: int
    pages: int


def page(whole: Sequence[T], number: int, size: int = SIZE) -> Page[T]:
    """Returns the page of a number, or the nearest there is."""
    pages = max(1, -(-len(whole) // size))
    number = min(max(1, number), pages)
    return Page(whole[(number - 1) * size : number * size], len(whole), number, pages)
