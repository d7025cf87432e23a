"""Many Dataplanes at once, as the store would have them after they were applied one by one."""

from __future__ import annotations

from dataclasses import replace

from kuma.resources import kinds
from kuma.store.protocol import Create
from tests.fakes.control_plane import Running, dataplane

_BATCH = 500


async def many_dataplanes(cp: Running, count: int, services: int) -> None:
    """Store `dp-0000` and so on, of `service-000` and so on in turn, and return once they are in the view."""
    mesh, first = kinds.MESH.key("default"), dataplane("dp", "service")
    networking = first.spec.net
    (inbound,) = networking.inbound
    made = []
    for index in range(count):
        tags = {**inbound.tags, "kuma.io/service": f"service-{index % services:03}"}
        inbounds = (inbound.model_copy(update={"port": 1000 + index, "tags": tags}),)
        spec = first.spec.model_copy(update={"networking": networking.model_copy(update={"inbound": inbounds})})
        made.append(replace(first, key=kinds.DATAPLANE.key(f"dp-{index:04}", "default"), spec=spec))
    stored = []
    for start in range(0, count, _BATCH):
        stored = list(
            await cp.parts.manager.store.transact([Create(one, mesh) for one in made[start : start + _BATCH]])
        )
    await cp.parts.views.until(lambda: cp.parts.views.holds(stored[-1]))
