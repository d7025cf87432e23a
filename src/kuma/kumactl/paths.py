"""Paths of the REST API. A name is checked and quoted before it becomes part of one: it cannot lead to another path."""

from __future__ import annotations

from urllib.parse import quote

from kuma.resources import kinds, parsing
from kuma.resources.kinds import Kind
from kuma.resources.resource import Key


def collection(kind: Kind, mesh: str) -> str:
    """Path of all resources of a kind (in a mesh).

    Raises:
        InvalidResource: there can be no mesh of that name.
    """
    return within(mesh, kind.path) if kind.in_mesh else f"/{kind.path}"


def item(key: Key, kind: Kind | None = None) -> str:
    """Path of one resource; `kind` has to be given for kinds that are not ours.

    Raises:
        InvalidResource: there can be none of that name.
    """
    parsing.check_key(key)
    return f"{collection(kind or kinds.by_name(key.kind), key.mesh)}/{quote(key.name, safe='')}"


def within(mesh: str, *parts: str) -> str:
    """Path of something in a mesh.

    Raises:
        InvalidResource: there can be no mesh of that name.
    """
    parsing.check_key(kinds.MESH.key(mesh))
    return "/".join(("/meshes", *(quote(part, safe="+") for part in (mesh, *parts))))
