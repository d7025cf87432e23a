"""Rules of who may be a member of a mesh: Dataplanes that its constraints keep out are not stored."""

from __future__ import annotations

from kuma.base.errors import InvalidResource
from kuma.policy import membership
from kuma.resources import kinds
from kuma.resources.models.dataplane import DataplaneSpec
from kuma.resources.resource import Resource
from kuma.store.manager import Decision, Rules
from kuma.store.protocol import Store, find


class MembershipRules:
    """Refuses Dataplanes that may not be members of their mesh; `then` judges everything else."""

    def __init__(self, then: Rules) -> None:
        self._then = then

    async def on_put(self, old: Resource[DataplaneSpec] | None, new: Resource[DataplaneSpec], store: Store) -> Decision:
        mesh = await find(store, kinds.MESH.key(new.mesh))
        reason = membership.exclusion(new.mesh, mesh.spec.membership, new.spec) if mesh else ""
        if reason:
            raise InvalidResource.of("mesh", reason)
        return await self._then.on_put(old, new, store)

    async def on_delete(self, old: Resource[DataplaneSpec], store: Store) -> Decision:
        return await self._then.on_delete(old, store)
