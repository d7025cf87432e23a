"""The names by which people call kinds of resources: singular, plural and short ones."""

from __future__ import annotations

import difflib

from kuma.base.errors import Misconfigured
from kuma.kumactl import foreign_kinds
from kuma.resources import kinds
from kuma.resources.kinds import Kind

_KINDS = (*(kind for kind in kinds.ALL if not kind.read_only), *foreign_kinds.ALL)
SINGULAR = {kind.singular: kind for kind in _KINDS} | {"globalsecret": kinds.GLOBAL_SECRET}
PLURAL = {kind.plural: kind for kind in _KINDS} | {"globalsecrets": kinds.GLOBAL_SECRET}
SHORT = {
    "dp": kinds.DATAPLANE,
    "tp": kinds.TRAFFIC_PERMISSION,
    "mtp": kinds.MESH_TRAFFIC_PERMISSION,
}
ALL = "all"
"""Stands for every kind that has an effect here, Secrets apart: they are for administrators."""
OF_ALL = (kinds.MESH, kinds.DATAPLANE, kinds.TRAFFIC_PERMISSION, kinds.MESH_TRAFFIC_PERMISSION)


def names(*others: str) -> list[str]:
    """Every name of a kind that has an effect here, and `others`."""
    return sorted({kind.singular for kind in kinds.IN_EFFECT if kind.singular in SINGULAR} | {*SHORT, *others})


def kind(name: str, *others: str) -> Kind:
    """The kind of that name; `others` are further names that may be asked for.

    Raises:
        Misconfigured: there is none; names the nearest one, or those that there are.
    """
    known = {**SINGULAR, **PLURAL, **SHORT}
    found = known.get(name) or known.get(name.lower())
    if found is not None:
        return found
    close = difflib.get_close_matches(name, [*known, *others], n=1)
    hint = f"; did you mean {close[0]}?" if close else f". Allowed values: {', '.join(names(*others))}"
    raise Misconfigured(f"unknown TYPE: {name}{hint}")


def starting(incomplete: str, *others: str) -> list[str]:
    """Completes a name of a kind."""
    return [name for name in sorted({*SINGULAR, *PLURAL, *SHORT, *others}) if name.startswith(incomplete)]
