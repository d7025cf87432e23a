"""What checks find: how bad it is, and what to do about it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from kuma.resources.resource import Model

Status = Literal["ok", "warning", "failure"]
Problem = tuple[Status, str, str]
"""How bad it is, what was found, and the remedy."""
_NAMED = 5


class Finding(Model):
    """The result of one check of one mesh; `mesh` is empty for the control plane itself."""

    mesh: str
    check: str
    status: Status
    found: str
    remedy: str = ""


def findings(mesh: str, name: str, problems: Sequence[Problem], fine: str) -> Iterator[Finding]:
    """Yields a finding for each problem of a check, or one that says what is `fine`."""
    for status, found, remedy in problems:
        yield Finding(mesh=mesh, check=name, status=status, found=found, remedy=remedy)
    if not problems:
        yield Finding(mesh=mesh, check=name, status="ok", found=fine)


def some(names: Sequence[str]) -> str:
    """Returns the first of these names, and how many more there are."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"
