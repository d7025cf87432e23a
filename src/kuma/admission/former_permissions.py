"""Notes of permissions as they were before a change, so that a control plane that begins knows which ones decided.

While leaves cannot show yet what new permissions look at, those before decide (`kuma.policy.succession`). A note is
written in the transaction of the change that it is about, and deleted when everybody can show what is looked at: all
notes of a mesh say together what decided when the last succession was over. Where there is no note, nobody is admitted
by permissions that may not have been there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from kuma.base.errors import InvalidResource
from kuma.policy.permissions import Permissions
from kuma.resources import kinds
from kuma.resources.models.config import ConfigSpec
from kuma.resources.resource import Key, Resource
from kuma.store.protocol import AnyResource, Create, Expect, Operation, Store, find

_LARGEST = 900_000
"""Characters, all of ASCII. A ConfigMap of Kubernetes holds 1 MiB."""
_KINDS = (kinds.TRAFFIC_PERMISSION.name, kinds.MESH_TRAFFIC_PERMISSION.name)


async def noted(
    before: Permissions, after: Permissions, changed: Key, old: AnyResource | None, store: Store
) -> tuple[Operation, ...]:
    """Returns the operations that note what a permission was, `old`, or that it was none, before it is changed.

    Nothing if no tag begins to be looked at, by this change or by one whose succession is not over. What is noted
    already stays: the first change counts. Of what is larger than every store takes, it is noted that it is not known:
    neither is then what decided before.
    """
    if not after.source_tags:
        return ()
    if after.source_tags <= before.source_tags and not await _is_any_noted(changed.mesh, store):
        return ()
    key = _key(changed)
    stored = await find(store, key)
    if stored is not None:
        return (Expect(key, stored.version),)
    note = _written(changed, old)
    if len(note) > _LARGEST:  # without it, others that are noted would decide beside what this one is today
        note = json.dumps({**_named(changed), "spec": None})
    return (Create(Resource(key, ConfigSpec(config=note)), kinds.MESH.key(changed.mesh)),)


def restored(permissions: Permissions, notes: Iterable[AnyResource]) -> Permissions | None:
    """Returns the permissions of a mesh as they were before what is noted of them has been changed.

    None if nothing is noted, or something that this version does not understand.
    """
    former: dict[str, dict[str, AnyResource | None]] = {kind: {} for kind in _KINDS}
    try:
        for note in notes:
            said = content(note)
            former[said["kind"]][said["name"]] = _former(said)
    except (InvalidResource, KeyError, TypeError, ValueError):
        return None
    if not any(former.values()):
        return None
    legacy, mesh = (former[kind] for kind in _KINDS)
    return permissions.following(_with(permissions.legacy, legacy), _with(permissions.mesh, mesh))


async def _is_any_noted(mesh: str, store: Store) -> bool:
    return bool((await store.list(kinds.CONFIG.name, name_contains=prefix(mesh), limit=1)).total)


def prefix(mesh: str) -> str:
    """Returns how the names of a mesh's notes begin."""
    return f"{kinds.FORMER_PERMISSION}{_digest(mesh)[:16]}-"


def _key(permission: Key) -> Key:
    return kinds.CONFIG.key(prefix(permission.mesh) + _digest(f"{permission.kind}/{permission.name}")[:32])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _written(key: Key, old: AnyResource | None) -> str:
    said: dict[str, Any] = dict(_named(key))
    if old is not None:
        said |= {"spec": old.spec.to_wire(), "labels": dict(old.labels), "since": old.creation_time.isoformat()}
    return json.dumps(said)


def _named(key: Key) -> Mapping[str, str]:
    return {"kind": key.kind, "mesh": key.mesh, "name": key.name}


def content(note: AnyResource) -> Mapping[str, Any]:
    """Returns what a note says; nothing if a version to come has written it."""
    try:
        said = json.loads(note.spec.config)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _former(said: Mapping[str, Any]) -> AnyResource | None:
    """Returns a permission as it was; None if there was none.

    Raises:
        InvalidResource, KeyError, TypeError, ValueError: another version has written it.
    """
    if "spec" not in said:
        return None
    kind = kinds.by_name(said["kind"])
    found = Resource(
        kind.key(said["name"], said["mesh"]), kind.spec.model_validate(said["spec"]), labels=dict(said["labels"])
    )
    return replace(found, creation_time=datetime.fromisoformat(said["since"]))


def _with(permissions: Mapping[str, Any], former: Mapping[str, AnyResource | None]) -> Mapping[str, Any]:
    if not former:
        return permissions
    found = {**permissions, **former}
    return {name: permission for name, permission in found.items() if permission is not None}
