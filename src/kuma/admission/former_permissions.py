"""Notes of permissions as they were before a change, so that a control plane that begins knows which ones decided.

While leaves cannot show yet what new permissions look at, those before decide (`kuma.policy.succession`). A note is
written in the transaction of the change that it is about, and deleted when everybody can show what is looked at: all
notes of a mesh say together what decided when the last succession was over. Where there is no note, nobody is admitted
by permissions that may not have been there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

import structlog

from kuma.base.errors import Conflict, InvalidResource, NotFound, Unavailable
from kuma.policy.permissions import Permissions
from kuma.resources import kinds
from kuma.resources.models.config import ConfigSpec
from kuma.resources.resource import Key, Resource
from kuma.store.protocol import AnyResource, Create, Delete, Expect, Operation, Store, find

log = structlog.get_logger(__name__)

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


class FormerPermissions:
    """Knows what was noted when a control plane began, and deletes what is noted of a mesh when it is over."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._recalled: dict[str, list[AnyResource]] = {}
        self._noted: set[str] = set()
        """Meshes of which something may be noted."""
        self._over: set[str] = set()
        """Those of which it is to be deleted."""

    async def recall(self, store: Store) -> None:
        """Takes in what is noted before anything is decided by it."""
        for note in (await store.list(kinds.CONFIG.name, name_contains=kinds.FORMER_PERMISSION)).items:
            mesh = str(_said(note).get("mesh"))
            self._recalled.setdefault(mesh, []).append(note)
            self._noted.add(mesh)

    def of(self, mesh: str, permissions: Permissions) -> Permissions | None:
        """Returns the permissions that decided before those of today; None if that is not known."""
        return _restored(permissions, self._recalled.get(mesh, ()))

    def begin(self, mesh: str) -> None:
        """Leaves are on their way: what is noted stays until they have come."""
        self._noted.add(mesh)
        self._over.discard(mesh)

    def end(self, mesh: str) -> None:
        """Nobody goes by what was before any more; `store` deletes what is noted of it."""
        self._recalled.pop(mesh, None)
        if mesh in self._noted:
            self._over.add(mesh)

    async def store(self) -> bool:
        """Deletes what is over; False if that has to be tried again."""
        try:
            for mesh in tuple(self._over):
                notes = (await self._store.list(kinds.CONFIG.name, name_contains=_of_mesh(mesh))).items
                for note in notes if mesh in self._over else ():
                    with contextlib.suppress(Conflict, NotFound):  # another control plane was faster
                        await self._store.transact([Expect(note.key, note.version), Delete(note.key)])
                if mesh in self._over:
                    self._over.discard(mesh)
                    self._noted.discard(mesh)
        except Unavailable as error:
            log.warning("notes of former permissions stay for a while", reason=str(error))
            return False
        return True


def _restored(permissions: Permissions, notes: Iterable[AnyResource]) -> Permissions | None:
    """Returns the permissions of a mesh as they were before what is noted of them has been changed.

    None if nothing is noted, or something that this version does not understand.
    """
    former: dict[str, dict[str, AnyResource | None]] = {kind: {} for kind in _KINDS}
    try:
        for note in notes:
            said = _said(note)
            former[said["kind"]][said["name"]] = _former(said)
    except (InvalidResource, KeyError, TypeError, ValueError):
        return None
    if not any(former.values()):
        return None
    legacy, mesh = (former[kind] for kind in _KINDS)
    return permissions.following(_with(permissions.legacy, legacy), _with(permissions.mesh, mesh))


async def _is_any_noted(mesh: str, store: Store) -> bool:
    return bool((await store.list(kinds.CONFIG.name, name_contains=_of_mesh(mesh), limit=1)).total)


def _of_mesh(mesh: str) -> str:
    return f"{kinds.FORMER_PERMISSION}{_digest(mesh)[:16]}-"


def _key(permission: Key) -> Key:
    return kinds.CONFIG.key(_of_mesh(permission.mesh) + _digest(f"{permission.kind}/{permission.name}")[:32])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _written(key: Key, old: AnyResource | None) -> str:
    said: dict[str, Any] = dict(_named(key))
    if old is not None:
        said |= {"spec": old.spec.to_wire(), "labels": dict(old.labels), "since": old.creation_time.isoformat()}
    return json.dumps(said)


def _named(key: Key) -> Mapping[str, str]:
    return {"kind": key.kind, "mesh": key.mesh, "name": key.name}


def _said(note: AnyResource) -> Mapping[str, Any]:
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
