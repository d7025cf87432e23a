"""Keeps what was generated for as long as somebody has it, so that equal arguments give the very same bytes.

A cache of a fixed size would thrash for a mesh that is larger. What is kept for longer than somebody has it would be
most of what a proxy takes here, after a few changes of all listeners.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar
from weakref import WeakValueDictionary

T = TypeVar("T")


class Generated:
    """The entries of one mesh, and their parts, by what they are generated from: those that somebody holds."""

    def __init__(self) -> None:
        self._held: WeakValueDictionary[Hashable, Any] = WeakValueDictionary()

    def __len__(self) -> int:
        return len(self._held)

    def entry(self, generate: Callable[..., T], *arguments: Hashable) -> T:
        """Returns what `generate` makes of these arguments, made once while it is in use."""
        key = (generate, *arguments)
        found: T | None = self._held.get(key)
        if found is None:
            found = self._held[key] = generate(*arguments)
        return found
