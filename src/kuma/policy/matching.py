"""Matches selectors against tags, and ranks matches by how specific they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from kuma.resources import tags as tag_rules


class Rank(NamedTuple):
    """Rank of a match by how specific it is; the greater one wins."""

    tags: int
    exact: int


def match(selector: Mapping[str, str], tags: Mapping[str, str]) -> Rank | None:
    """Returns the rank of the match of `selector` on `tags`, or None: every selected tag has to exist and agree."""
    exact = 0
    for name, value in selector.items():
        if name not in tags or value not in (tag_rules.ANY, tags[name]):
            return None
        exact += value != tag_rules.ANY
    return Rank(len(selector), exact)
