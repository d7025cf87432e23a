"""Changes of a mesh, and how to see that they have arrived."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

from kuma.resources import kinds
from kuma.resources.models.dataplane import DataplaneSpec, Inbound
from kuma.resources.resource import Resource
from tests.fakes.control_plane import Running, resource
from tests.integration.sidecars import Sidecar, until


async def transition(cp: Running) -> Any:
    """The stored transition of the mesh, None if it has none."""
    found = await cp.parts.manager.find(kinds.MESH_TRANSITION.key("default", "default"))
    return found.spec if found else None


async def change(cp: Running, mesh: str) -> None:
    """Apply a Mesh, and return when its mutual TLS is what it declares, at every proxy."""
    before = await transition(cp)
    await cp.apply(mesh)

    async def complete() -> Any:
        now = await transition(cp)
        return now and now.complete and now != before

    await until(f"complete: {mesh}", complete)


async def secrets(cp: Running, **texts: str) -> None:
    """Apply Secrets, by their names."""
    for name, text in texts.items():
        data = base64.b64encode(text.encode()).decode()
        await cp.apply(f"{{type: Secret, mesh: default, name: {name}, data: {data}}}")


async def revoke(cp: Running, permission: str) -> None:
    """Delete a permission, and return when every connected proxy has acknowledged that."""
    await cp.delete(permission)
    gone = resource(permission).key
    await cp.parts.views.until(lambda: cp.parts.views.view("default").find(gone) is None)

    async def converged() -> bool:
        return all(proxy.converged for proxy in cp.parts.proxies)

    await until("all proxies have converged", converged)


async def edit_inbounds(cp: Running, sidecar: Sidecar, edit: Callable[[Inbound], tuple[Inbound, ...]]) -> None:
    """Replace the one inbound of a Dataplane by what `edit` makes of it."""
    stored: Resource[DataplaneSpec] = await cp.parts.manager.get(kinds.DATAPLANE.key(f"{sidecar.name}-01", "default"))
    (inbound,) = stored.spec.net.inbound
    net = stored.spec.net.model_copy(update={"inbound": edit(inbound)})
    await cp.apply_resource(stored.with_spec(stored.spec.model_copy(update={"networking": net})))


def tagged(inbound: Inbound, tags: dict[str, str], **more: object) -> Inbound:
    """The same inbound with other or further tags, and with `more` of it changed."""
    return inbound.model_copy(update={"tags": {**inbound.tags, **tags}, **more})
