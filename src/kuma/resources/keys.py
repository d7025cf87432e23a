"""Who a resource is: its kind, its mesh and its name, and what names there can be."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from kuma.base.errors import InvalidResource, Violation

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*", re.ASCII)
_NAME_RULE = (
    "invalid characters. A lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or "
    "'.', and must start and end with an alphanumeric character"
)


class Key(NamedTuple):
    """Identity of a resource. `kind` is the type's name (`Mesh`); `mesh` is empty for global kinds.

    A tuple: hundreds are looked up for each proxy that connects, and the hash of a data class is computed in Python.
    """

    kind: str
    mesh: str
    name: str

    def __str__(self) -> str:
        return f'{self.kind} "{self.name}"' + (f' in mesh "{self.mesh}"' if self.mesh else "")


def check(key: Key) -> None:
    """The rules of names.

    Raises:
        InvalidResource: a name is empty, too long, or has other characters than a DNS subdomain.
    """
    violations = [*_name("name", key.name, 63 if key.kind == "Mesh" else 253)]
    if key.kind == "Mesh" and "." in key.name:
        violations.append(Violation("name", "must not contain a dot: proxies are called <mesh>.<name>"))
    if key.kind != "Mesh" and key.mesh:
        violations += _name("mesh", key.mesh, 63)
    if violations:
        raise InvalidResource(violations)


def _name(field: str, name: str, longest: int) -> Sequence[Violation]:
    if not name:
        return [Violation(field, "cannot be empty")]
    if len(name) > longest:
        return [Violation(field, f"cannot be longer than {longest} characters")]
    return [] if _NAME.fullmatch(name) else [Violation(field, _NAME_RULE)]
