"""Previews a change without a control plane: from what it has exported, and a recording of traffic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from kuma.base.errors import Misconfigured
from kuma.foresight import preview
from kuma.foresight.preview import Known
from kuma.foresight.traffic import SeenCaller, TrafficSummary
from kuma.resources import kinds
from kuma.resources.resource import Key, Resource
from kuma.resources.view import MeshView


def answer(
    stored: Sequence[Resource[Any]],
    recorded: Sequence[Mapping[str, Any]],
    resources: Sequence[Resource[Any]],
    deleted: Sequence[Key],
    now: datetime,
    within: str = "",
) -> Mapping[str, Any]:
    """Returns what the API would answer, as far as it can be known: nothing of proxies that are connected.

    Raises:
        Misconfigured: the recording holds something else.
        InvalidResource: `within` is no duration.
    """
    try:
        callers = [SeenCaller.model_validate(item) for item in recorded]
    except ValidationError as error:
        raise Misconfigured(f"the recording is of another version: {error.errors()[0]['loc']}") from None
    lately = preview.within(within)
    found = []
    for mesh, changes in sorted(preview.by_mesh(resources, deleted).items()):
        view = MeshView(mesh).following({one.key: one for one in stored if _mesh(one.key) == mesh})
        of_mesh = [caller for caller in callers if caller.mesh == mesh]
        known = Known(of_mesh, _summary(view, of_mesh), {}, now, within=lately)
        found.append(preview.preview(view, changes, known))
    items = [one.model_dump(mode="json", by_alias=True) for one in found]
    return {"breaks": any(one.breaks for one in found), "items": items}


def _mesh(key: Key) -> str:
    return key.name if key.kind == kinds.MESH.name else key.mesh


def _summary(view: MeshView, callers: Sequence[SeenCaller]) -> TrafficSummary:
    """Summarises recorded traffic. A Dataplane that nobody was seen to call may not have been observed."""
    called = {caller.dataplane for caller in callers}
    served = sorted(name for name, dataplane in view.dataplanes.items() if dataplane.spec.net.inbound)
    unobserved = [name for name in served if name not in called]
    return TrafficSummary(
        mesh=view.name,
        since=max((caller.first for caller in callers), default=None),
        observed=len(served) - len(unobserved),
        unobserved=tuple(unobserved[:5]),
        unobserved_total=len(unobserved),
    )
