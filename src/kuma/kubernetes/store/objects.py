"""Reads and finds objects by the keys of resources."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import structlog

from kuma.base.errors import NotFound, StoreCorrupt
from kuma.kubernetes.api.client import ApiClient, Object
from kuma.kubernetes.objects import content
from kuma.kubernetes.objects.forms import Form, Forms
from kuma.resources import kinds
from kuma.resources.resource import Key, Resource

log = structlog.get_logger(__name__)

_OWNING = {
    kinds.MESH.name: (*(kind for kind in kinds.ALL if kind.in_mesh), kinds.OBSERVED_TRAFFIC),
    kinds.DATAPLANE.name: (kinds.DATAPLANE_INSIGHT, kinds.OBSERVED_TRAFFIC),
}
"""The kinds of which something may belong to a resource of a kind."""


class Objects:
    """The objects of all kinds."""

    def __init__(self, client: ApiClient, forms: Forms) -> None:
        self.client = client
        self.forms = forms

    async def find(self, key: Key) -> Object | None:
        """The object of a resource; None if there is none, or if it is another mesh's."""
        form = self.forms.of(key.kind)
        found = await self.client.find(form.path(key))
        return found if found is not None and form.key(found) == key else None

    async def find_all(self, keys: Sequence[Key]) -> dict[Key, Object | None]:
        """The objects of several resources."""
        return dict(zip(keys, await asyncio.gather(*map(self.find, keys)), strict=True))

    async def get(self, key: Key) -> Resource[Any]:
        """The resource; see `Store.get`."""
        found = await self.find(key)
        resource = content.decode(self.forms.of(key.kind), found) if found is not None else None
        if resource is None:
            raise NotFound(f"{key} not found")
        return resource

    async def all(self, kind: str) -> list[Resource[Any]]:
        """All resources of a kind that can be understood."""
        form = self.forms.of(kind)
        found, _ = await self.client.list(form.collection)
        return [resource for one in found if (resource := self.understood(form, one)) is not None]

    def understood(self, form: Form, found: Object) -> Resource[Any] | None:
        """The resource in an object; None if it is not of this kind, or not understood, which is logged."""
        try:
            return content.decode(form, found)
        except StoreCorrupt as error:
            self.client.metrics.passed_over.inc()
            log.error("an object is passed over", reason=str(error))
            return None

    async def owned(self, owner: Key, uid: str) -> list[tuple[Key, Object]]:
        """Returns what belongs to a resource, by the owner references of the objects."""
        forms = [self.forms.of(kind.name) for kind in _OWNING.get(owner.kind, (kinds.SECRET,))]
        lists = await asyncio.gather(*(self.client.list(form.collection) for form in forms))
        found = [
            (key, one)
            for form, (objects, _) in zip(forms, lists, strict=True)
            for one in objects
            if _belongs(one, uid) and (key := form.key(one)) is not None
        ]
        return sorted(found, key=lambda pair: (pair[0].kind, pair[0].name))


def _belongs(found: Object, uid: str) -> bool:
    return any(reference["uid"] == uid for reference in found["metadata"].get("ownerReferences") or ())
