"""The names by which people call kinds of resources: singular, plural and short ones."""

from __future__ import annotations

import difflib

from kuma.base.errors import Misconfigured
from kuma.kumactl import foreign_kinds
from kuma.resources import naming
from kuma.resources.models import stored_only
from kuma.resources.naming import Naming

_KINDS = (*naming.WRITABLE, *(kind.naming for kind in stored_only.ALL), *foreign_kinds.ALL)
SINGULAR = {kind.singular: kind for kind in _KINDS} | {"globalsecret": naming.GLOBAL_SECRET}
PLURAL = {kind.plural: kind for kind in _KINDS} | {"globalsecrets": naming.GLOBAL_SECRET}
SHORT = {
    "dp": naming.DATAPLANE,
    "tp": naming.TRAFFIC_PERMISSION,
    "mtp": naming.MESH_TRAFFIC_PERMISSION,
}
ALL = "all"
"""Stands for every kind that has an effect here, Secrets apart: they are for administrators."""
OF_ALL = (naming.MESH, naming.DATAPLANE, naming.TRAFFIC_PERMISSION, naming.MESH_TRAFFIC_PERMISSION)
_OFFERED = {name: kind for kind in naming.WRITABLE for name in (kind.singular, kind.plural)} | SHORT
"""What is offered to whoever has mistyped: kinds that have an effect here."""


def names(*others: str) -> list[str]:
    """Every name of a kind that has an effect here, and `others`."""
    return sorted({kind.singular for kind in naming.WRITABLE} | {*SHORT, *others})


def kind(name: str, *others: str) -> Naming:
    """The kind of that name; `others` are further names that may be asked for.

    Raises:
        Misconfigured: there is none; names the nearest one, or those that there are.
    """
    known = {**SINGULAR, **PLURAL, **SHORT}
    found = known.get(name) or known.get(name.lower())
    if found is not None:
        return found
    close = difflib.get_close_matches(name.lower(), [*_OFFERED, *others], n=1)
    hint = f"; did you mean {close[0]}?" if close else f". Allowed values: {', '.join(names(*others))}"
    raise Misconfigured(f"unknown TYPE: {name}{hint}")


def starting(incomplete: str, *others: str) -> list[str]:
    """Completes a name of a kind."""
    return [name for name in sorted({*SINGULAR, *PLURAL, *SHORT, *others}) if name.startswith(incomplete)]
