"""Keeps what was generated for as long as it is in use, so that equal arguments give the very same bytes.

A cache of a fixed size would thrash for a mesh that is larger, and one without a bound would grow with every name that
was ever used.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

T = TypeVar("T")


class Generated:
    """The entries of one mesh, and their parts, by what they are generated from.

    It keeps all that are in use, and at most twice as many. Two generations: when the young one holds as many as are in
    use, it becomes the old one. Whatever is asked for meanwhile is young again; what nobody has asked for is forgotten
    with the old one.
    """

    def __init__(self) -> None:
        self._in_use = 1
        self._young: dict[Hashable, Any] = {}
        self._old: dict[Hashable, Any] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def expect(self, in_use: int) -> None:
        """Sets how many entries are in use at the same time from now on."""
        self._in_use = max(1, in_use)

    def entry(self, generate: Callable[..., T], *arguments: Hashable) -> T:
        """Returns what `generate` makes of these arguments, made once."""
        key = (generate, *arguments)
        found: T | None = self._young.get(key)
        if found is not None:
            return found
        found = self._old.pop(key, None) or generate(*arguments)
        if len(self._young) >= self._in_use:
            self._young, self._old = {}, self._young
        self._young[key] = found
        return found
