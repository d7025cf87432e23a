"""A store that shows what would be, without storing it: changes stay in memory, over what another store holds."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from kuma.base.errors import AlreadyExists, Conflict, NotFound
from kuma.resources.resource import Key
from kuma.resources.view import MeshView
from kuma.store.protocol import (
    AnyResource,
    Commit,
    Create,
    Delete,
    Expect,
    ExpectAll,
    Listing,
    Operation,
    Page,
    StillOwns,
    Store,
    Update,
    find,
)


class Rehearsal:
    """One rehearsal: what is written to it is seen by it alone, and gone with it. For one user at a time."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._changed: dict[Key, AnyResource | None] = {}
        """What has been written; None for what has been deleted."""

    def seen(self, view: MeshView) -> MeshView:
        """Returns a mesh as it would be with what has been written."""
        known = ((key, resource) for key, resource in self._changed.items() if view.holds(key))
        return view.following({key: new for key, new in known if new is not None or view.find(key) is not None})

    async def get(self, key: Key) -> AnyResource:
        """The resource; see `Store.get`."""
        if key not in self._changed:
            return await self._store.get(key)
        found = self._changed[key]
        if found is None:
            raise NotFound(str(key))
        return found

    async def list(
        self, kind: str, mesh: str | None = None, *, name_contains: str = "", offset: int = 0, limit: int | None = None
    ) -> Page:
        """Resources of a kind; see `Store.list`."""
        stored = await self._store.list(kind, mesh, name_contains=name_contains)
        left = [resource for resource in stored.items if resource.key not in self._changed]
        written = [
            resource
            for key, resource in self._changed.items()
            if resource is not None and key.kind == kind and mesh in (None, key.mesh) and name_contains in key.name
        ]
        found = sorted([*left, *written], key=lambda resource: resource.key)
        end = None if limit is None else offset + limit
        return Page(tuple(found[offset:end]), len(found))

    async def transact(self, operations: Sequence[Operation]) -> tuple[AnyResource, ...]:
        """Does all operations in memory, or none; see `Store.transact`."""
        before = dict(self._changed)
        try:
            done = [await self._done(operation) for operation in operations]
        except Exception:
            self._changed = before
            raise
        return tuple(resource for resource in done if resource is not None)

    async def _done(self, operation: Operation) -> AnyResource | None:
        match operation:
            case Create(resource, owner):
                if owner is not None:
                    await self.get(owner)
                if await find(self, resource.key) is not None:
                    raise AlreadyExists(str(resource.key))
                return self._write(replace(resource, version=1))
            case Update(resource):
                await self._expect(resource.key, resource.version)
                return self._write(replace(resource, version=resource.version + 1))
            case Expect(key, version):
                await self._expect(key, version)
            case ExpectAll():  # nobody is to be kept from what is not stored
                pass
            case Delete(key, unless_owns):
                await self._delete(key, unless_owns)
        return None

    def _write(self, resource: AnyResource) -> AnyResource:
        self._changed[resource.key] = resource
        return resource

    async def _expect(self, key: Key, version: int) -> None:
        found = await find(self, key)
        if (found.version if found else 0) != version:
            raise Conflict(f"{key} has been changed meanwhile")

    async def _delete(self, key: Key, unless_owns: str) -> None:
        """Deletes a resource. What it owns is in its mesh, and is not looked for one by one: nothing comes after."""
        await self.get(key)
        if unless_owns and (await self.list(unless_owns, key.name, limit=1)).total:
            raise StillOwns(str(key))
        self._changed[key] = None

    def watch(self, since: int | None = None) -> AsyncIterator[Listing | Commit]:
        """Changes of the store itself: a rehearsal makes none."""
        return self._store.watch(since)

    async def close(self) -> None:
        """Releases nothing: the store belongs to somebody else."""
