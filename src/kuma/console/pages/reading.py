"""Reads what pages are about."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from kuma.api.http.errors import Problem
from kuma.console.context import ConsoleContext, Seen
from kuma.foresight import preview, traffic
from kuma.foresight.course import Insights
from kuma.foresight.traffic import TrafficSummary
from kuma.resources.view import MeshView


def view(context: ConsoleContext, mesh: str) -> MeshView:
    """Returns the view of a mesh.

    Raises:
        Problem: 404, there is none.
    """
    found = context.api.observation.view(mesh)
    if found.mesh is None:
        raise Problem(404, "Not found", f'There is no mesh "{mesh[:100]}".')
    return found


class Known(NamedTuple):
    """A mesh as it is at an instant, without who calls whom."""

    view: MeshView
    insights: Insights
    summary: TrafficSummary
    now: datetime


async def known(context: ConsoleContext, mesh: str) -> Known:
    """Returns what is known of a mesh now; see `view`."""
    found, insights, now = view(context, mesh), context.followed.insights(mesh), context.api.clock.now()
    observed = context.observed(mesh, context.followed.observed(mesh))
    summary = await context.api.costly.do(traffic.summary, found, observed, now)
    return Known(found, insights, summary, now)


async def seen(context: ConsoleContext, mesh: str) -> Seen:
    """Returns a mesh as it is now; see `view`."""
    found, insights, now = view(context, mesh), context.followed.insights(mesh), context.api.clock.now()
    observed = context.observed(mesh, context.followed.observed(mesh))
    callers = await context.api.costly.do(traffic.callers, found, observed, now)
    summary = await context.api.costly.do(traffic.summary, found, observed, now)
    known = preview.Known(callers, summary, insights, now, context.api.observation.pace)
    return Seen(found, insights, callers, known)


def number(text: str) -> int:
    """Returns the number of a page in a query; the first if it is none."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else 1
