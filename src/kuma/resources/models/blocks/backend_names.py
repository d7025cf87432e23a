"""Names of the backends that a Mesh lists, be it for logs or for metrics: each has one, and no other has the same."""

from __future__ import annotations

from collections.abc import Iterator

from kuma.base.errors import Violation


def validate(path: str, name: str, seen: set[str]) -> Iterator[Violation]:
    """Refuses the name of the backend at `path` if it is empty or among `seen`, to which it is added."""
    if not name:
        yield Violation(f"{path}.name", "cannot be empty")
    if name in seen:
        yield Violation(f"{path}.name", f'"{name}" name is already used for another backend')
    seen.add(name)
