"""A store that keeps an audit record of every change, whoever makes it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from kuma.base.audit import Audit
from kuma.resources import kinds
from kuma.resources.resource import Key
from kuma.store.protocol import AnyResource, Commit, Create, Delete, Listing, Operation, Page, Store, Update

_UNRECORDED = (kinds.DATAPLANE_INSIGHT.name, kinds.MESH_TRANSITION.name)
"""What the control plane notes for itself."""


class AuditedStore:
    """Wraps a store; reads pass through."""

    def __init__(self, store: Store, audit: Audit) -> None:
        self._store = store
        self._audit = audit

    async def get(self, key: Key) -> AnyResource:
        return await self._store.get(key)

    async def list(
        self, kind: str, mesh: str | None = None, *, name_contains: str = "", offset: int = 0, limit: int | None = None
    ) -> Page:
        return await self._store.list(kind, mesh, name_contains=name_contains, offset=offset, limit=limit)

    async def transact(self, operations: Sequence[Operation]) -> tuple[AnyResource, ...]:
        """See `Store.transact`; what was done is recorded once it is."""
        stored = await self._store.transact(operations)
        for operation in operations:
            match operation:
                case Create():
                    self._record("created", operation.resource.key)
                case Update():
                    self._record("updated", operation.resource.key)
                case Delete():
                    self._record("deleted", operation.key)
        return stored

    def _record(self, action: str, key: Key) -> None:
        if key.kind not in _UNRECORDED:
            self._audit.record(f"resource {action}", type=key.kind, mesh=key.mesh, name=key.name)

    def watch(self, since: int | None = None) -> AsyncIterator[Listing | Commit]:
        return self._store.watch(since)

    async def close(self) -> None:
        await self._store.close()
