"""What is seen of a mesh, for the routes that judge it: its view, its proxies, and who has called."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from kuma.api.context import ApiContext
from kuma.foresight import traffic
from kuma.foresight.course import Insights
from kuma.foresight.traffic import SeenCaller, TrafficSummary
from kuma.resources.kinds import DATAPLANE_INSIGHT
from kuma.resources.view import MeshView


class Seen(NamedTuple):
    """A mesh as it is at an instant."""

    view: MeshView
    insights: Insights
    callers: tuple[SeenCaller, ...]
    summary: TrafficSummary


async def seen(context: ApiContext, mesh: str) -> Seen:
    """Returns what is seen of a mesh now."""
    view, observed = context.observation.view(mesh), await context.observation.traffic(mesh)
    insights = {found.name: found.spec for found in (await context.manager.list(DATAPLANE_INSIGHT.name, mesh)).items}
    now = context.clock.now()
    callers = await asyncio.to_thread(traffic.callers, view, observed, now)
    return Seen(view, insights, callers, traffic.summary(view, observed, now))
