"""Resources as rows of the database: Secrets are sealed in them."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from kuma.base.errors import InvalidResource, StoreCorrupt
from kuma.resources import codec, kinds
from kuma.resources.resource import Key, Resource
from kuma.store.protocol import AnyResource
from kuma.store.sealing.encryption import Sealer
from kuma.store.sql import schema

_KEYS_PER_QUERY = 200
_KEPT = 10_000
"""Resources; the Dataplanes and insights of 5,000 proxies."""


def encode(resource: AnyResource, sealer: Sealer) -> dict[str, Any]:
    """Returns a resource as a row."""
    key = resource.key
    spec = json.dumps(resource.spec.to_wire(), separators=(",", ":")).encode()
    return {
        "kind": key.kind,
        "mesh": key.mesh,
        "name": key.name,
        "spec": sealer.seal(key, spec) if kinds.by_name(key.kind).sealed else spec,
        "labels": json.dumps(dict(resource.labels)),
        "version": resource.version,
        "creation_time": codec.rfc3339(resource.creation_time),
        "modification_time": codec.rfc3339(resource.modification_time),
    }


def decode(row: sa.RowMapping, sealer: Sealer) -> AnyResource:
    """Returns the resource in a row.

    Raises:
        StoreCorrupt: it cannot be opened or understood.
    """
    key = Key(row["kind"], row["mesh"], row["name"])
    try:
        kind = kinds.by_name(key.kind)
        spec = sealer.open(key, row["spec"]) if kind.sealed else row["spec"]
        return Resource(
            key,
            kind.spec.model_validate_json(spec, extra="ignore" if key.kind in kinds.TOLD else None),
            labels=json.loads(row["labels"]),
            creation_time=datetime.fromisoformat(row["creation_time"]),
            modification_time=datetime.fromisoformat(row["modification_time"]),
            version=row["version"],
        )
    except (ValueError, TypeError, InvalidResource):  # whose text may hold what is to stay secret
        raise StoreCorrupt(f"{key} is stored in a form that this version does not understand") from None


def blank(row: sa.RowMapping) -> AnyResource | None:
    """Returns what is known of a resource that cannot be understood: of a proxy nothing, until it is told anew.

    None if it is of another kind.
    """
    if row["kind"] != kinds.DATAPLANE_INSIGHT.name:
        return None
    key = Key(row["kind"], row["mesh"], row["name"])
    return Resource(key, kinds.DATAPLANE_INSIGHT.spec(), version=row["version"])


class Read:
    """Keeps what was read last: of a long list most has not changed since. What is sealed is not kept."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, str, str], tuple[tuple[int, str], AnyResource]] = OrderedDict()

    def resource(self, row: sa.RowMapping, sealer: Sealer) -> AnyResource:
        """Returns the resource in a row; see `decode`."""
        key, age = (row["kind"], row["mesh"], row["name"]), (row["version"], row["creation_time"])
        known = self._known.pop(key, None)
        if known is None or known[0] != age:
            known = age, decode(row, sealer)
        if not kinds.by_name(row["kind"]).sealed:
            self._known[key] = known
            if len(self._known) > _KEPT:
                self._known.popitem(last=False)
        return known[1]


def is_at(key: Key) -> sa.ColumnElement[bool]:
    """Returns the condition that finds the row of a resource."""
    columns = schema.resources.c
    return sa.and_(columns.kind == key.kind, columns.mesh == key.mesh, columns.name == key.name)


async def rows_of(
    connection: AsyncConnection, keys: Sequence[Key], *further: sa.Column[Any]
) -> dict[Key, sa.RowMapping]:
    """Returns the rows of those resources that exist; whole, or their keys and `further` columns."""
    query, found = _named(tuple(column.name for column in further)), dict[Key, sa.RowMapping]()
    for start in range(0, len(keys), _KEYS_PER_QUERY):
        wanted = [(key.kind, key.mesh, key.name) for key in keys[start : start + _KEYS_PER_QUERY]]
        for row in (await connection.execute(query, {"keys": wanted})).mappings():
            found[Key(row["kind"], row["mesh"], row["name"])] = row
    return found


@cache
def _named(further: tuple[str, ...]) -> sa.Select[Any]:
    """Returns the query for resources by their `keys`. To make it takes as long as to ask it, so it is made once."""
    columns = schema.resources.c
    own = (columns.kind, columns.mesh, columns.name)
    wanted = (*own, *(columns[name] for name in further)) if further else tuple(columns)
    return sa.select(*wanted).where(sa.tuple_(*own).in_(sa.bindparam("keys", expanding=True)))
