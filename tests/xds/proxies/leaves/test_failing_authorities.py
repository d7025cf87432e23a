"""Ways out of an authority that issues nothing any more, while proxies are connected that have got nothing from it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from kuma.resources import kinds
from kuma.resources.models.mesh_transition import MeshTransitionSpec
from kuma.xds.envoy.services.serving_label import is_serving
from tests.fakes import cas
from tests.fakes.clock import ManualClock
from tests.fakes.control_plane import Running, dataplane, running
from tests.fakes.patience import PATIENCE

WEB, NEWCOMER = dataplane("web-01", "web"), dataplane("web-02", "web", port=81)
ENDED = 21 * 24 * 3600.0
"""Seconds after which the first authority of these tests has ended."""


def mesh(*backends: dict[str, Any]) -> str:
    """The Mesh with these backends, of which the first is enabled, or without mutual TLS."""
    mtls = {"enabledBackend": backends[0]["name"], "backends": list(backends)} if backends else None
    return json.dumps({"type": "Mesh", "name": "default", "mtls": mtls})


def provided(directory: Path, days: str) -> dict[str, Any]:
    ca = cas.root(directory, f"ca-of-{days}-days", days=days)
    return {"name": "own", "type": "provided", "conf": {k: {"inlineString": text} for k, text in vars(ca).items()}}


async def transition(
    cp: Running, clock: ManualClock, holds: Callable[[MeshTransitionSpec], Any], seconds: int
) -> MeshTransitionSpec:
    """Where the mesh is once that is as it should be, or after a time."""
    key, end = kinds.MESH_TRANSITION.key("default", "default"), clock.now() + timedelta(seconds=seconds)
    found: MeshTransitionSpec = (await cp.parts.manager.get(key)).spec
    while not holds(found) and clock.now() < end:
        clock.advance(1)
        await cp.looked_around()
        found = (await cp.parts.manager.get(key)).spec
    return found


def serving(cp: Running) -> list[bool]:
    """Whether callers are sent to each of the proxies."""
    return [is_serving(dataplane) for _, dataplane in sorted(cp.parts.views.view("default").dataplanes.items())]


@pytest.mark.parametrize("remedy", ["another backend", "another content", "no mutual TLS"])
async def test_a_change_away_from_an_authority_that_has_ended_does_not_wait_for_it(tmp_path: Path, remedy: str) -> None:
    first = provided(tmp_path, days="20")
    remedies = {
        "another backend": (dict(name="two", type="builtin"),),
        "another content": (provided(tmp_path, days="60"),),
        "no mutual TLS": (),
    }
    clock = ManualClock(datetime.now(UTC) + timedelta(seconds=1))  # by now, what openssl has made is valid
    async with running(tmp_path, clock) as cp:
        await cp.apply(mesh(first))
        await cp.proxy(WEB)
        await cp.settled(1)
        clock.advance(ENDED)
        await cp.proxy(NEWCOMER)
        stuck = await transition(cp, clock, lambda found: found.problem, 40)
        assert "1 proxies get no certificate, such as web-02" in stuck.problem
        assert serving(cp) == [True, False], "callers would be let in nowhere without its certificate"
        await cp.apply(mesh(*remedies[remedy]))
        done = await transition(cp, clock, lambda found: found.complete, 20)
        assert done.complete, "long before a proxy would have been given up"
        async with asyncio.timeout(PATIENCE):
            await cp.parts.views.until(lambda: serving(cp) == [True, True])
