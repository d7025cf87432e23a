"""Paths of the REST API. A name is checked and quoted before it becomes part of one: it cannot lead to another path."""

from __future__ import annotations

from urllib.parse import quote

from kuma.resources import keys, naming
from kuma.resources.keys import Key
from kuma.resources.naming import Naming


def collection(kind: Naming, mesh: str) -> str:
    """Path of all resources of a kind (in a mesh).

    Raises:
        InvalidResource: there can be no mesh of that name.
    """
    return within(mesh, kind.path) if kind.in_mesh else f"/{kind.path}"


def item(key: Key, kind: Naming | None = None) -> str:
    """Path of one resource; `kind` has to be given for kinds that have no effect here.

    Raises:
        InvalidResource: there can be none of that name.
    """
    keys.check(key)
    return f"{collection(kind or naming.BY_NAME[key.kind], key.mesh)}/{quote(key.name, safe='')}"


def within(mesh: str, *parts: str) -> str:
    """Path of something in a mesh.

    Raises:
        InvalidResource: there can be no mesh of that name.
    """
    keys.check(naming.MESH.key(mesh))
    return "/".join(("/meshes", *(quote(part, safe="+") for part in (mesh, *parts))))
