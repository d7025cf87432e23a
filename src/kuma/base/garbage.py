"""Keeps collections of garbage short: everything stands meanwhile, the longer the more there is.

Python goes through all objects whenever there are a quarter more of them. Most of what a control plane holds stays for
long; what has stayed once is looked at again only when as much has come anew.
"""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Iterator, Mapping
from typing import Any

_OLDEST = 2
"""The generation of which everything becomes a part that stays: a collection of it is a full one."""
_YOUNG = 2_000
"""Objects that come before a collection, instead of 700: most of what a connection makes has gone by then without one,
and what stays is looked at less often."""
_LONG = 0.02
"""Seconds."""
_AT_FIRST = 0.2
"""Seconds of looking at what comes after the beginning, after which what there was then is looked at, too."""


class _Collections:
    """Counts in seconds of looking: of the last look at everything, and of what has been set aside since then."""

    def __init__(self, longest: float) -> None:
        self._longest = longest
        self._everything = _AT_FIRST
        self._since = 0.0
        self._looks_at_everything = False
        self._began = 0.0

    def __call__(self, phase: str, info: Mapping[str, Any]) -> None:
        if info["generation"] < _OLDEST:
            return
        if phase == "start":
            self._looks_at_everything = self._since >= self._everything
            if self._looks_at_everything:
                gc.unfreeze()
            self._began = time.thread_time()
            return
        took = time.thread_time() - self._began
        if took < self._longest:
            return
        gc.freeze()
        if self._looks_at_everything:
            self._everything, self._since = took, 0.0
        else:
            self._since += took


@contextlib.contextmanager
def kept_short(longest: float = _LONG) -> Iterator[None]:
    """Keeps collections of this process short, until the end of the block.

    What a full one has left that took `longest` seconds of CPU is set aside (`gc.freeze`), and at the beginning what
    there is, which is the program itself: the first full collection would come when the first proxies do.
    """
    collections, (young, *others) = _Collections(longest), gc.get_threshold()
    gc.set_threshold(_YOUNG, *others)
    gc.freeze()
    gc.callbacks.append(collections)
    try:
        yield
    finally:
        gc.callbacks.remove(collections)
        gc.set_threshold(young, *others)
        gc.unfreeze()
