"""What stays is not looked at at every full collection, and garbage goes nevertheless.

Each is tried in a program of its own: in this one there are a million objects of all tests, and they are set aside.
"""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest

from kuma.base import garbage

MANY = 100_000


class Node:
    """Refers to itself: only a collection finds that nobody else does."""

    def __init__(self) -> None:
        self.itself = self


def what_has_stayed_once_is_not_looked_at_by_the_next_collection() -> None:
    with garbage.kept_short(longest=0):
        kept = [[number] for number in range(MANY)]
        gc.collect()
        looked_at = {id(found) for found in gc.get_objects()}
        assert not any(id(found) in looked_at for found in kept)
    assert gc.get_freeze_count() == 0


def what_there_is_at_the_beginning_is_not_looked_at_by_the_first_collection() -> None:
    there = [[number] for number in range(MANY)]
    looked_at: list[int] = []
    with garbage.kept_short(longest=0):
        gc.callbacks.append(lambda *_: looked_at.append(len(gc.get_objects())))
        gc.collect()
        gc.callbacks.pop()
    assert looked_at
    assert max(looked_at) < len(there)


def garbage_among_what_has_stayed_is_found_when_as_much_has_come_anew() -> None:
    with garbage.kept_short(longest=0):
        node = Node()
        gone = weakref.ref(node)
        gc.collect()
        del node
        gc.collect()
        assert gone() is not None  # not looked at
        for _ in range(10_000):
            new = [[number] for number in range(MANY)]
            gc.collect()
            assert len(new) == MANY
            if gone() is None:
                return
        raise AssertionError("it was never looked at")


@pytest.mark.parametrize(
    "claim",
    [
        what_has_stayed_once_is_not_looked_at_by_the_next_collection,
        what_there_is_at_the_beginning_is_not_looked_at_by_the_first_collection,
        garbage_among_what_has_stayed_is_found_when_as_much_has_come_anew,
    ],
)
def test_it_holds_in_a_program_of_its_own(claim: Callable[[], None]) -> None:
    here = Path(__file__)
    program = f"import {here.stem} as here; here.{claim.__name__}()"
    subprocess.run([sys.executable, "-c", program], cwd=here.parent, check=True)
