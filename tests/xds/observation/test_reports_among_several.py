"""What proxies report to several control planes over one PostgreSQL is known to all of them, and kept."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
import httpx

from kuma.base import aio
from kuma.base.tls.trust import NOBODY
from tests.fakes.control_plane import ALLOW_ALL, MTLS, Running, dataplane
from tests.fakes.patience import PATIENCE
from tests.fakes.reports import entry, report
from tests.fakes.several import Several, several

BACKEND = dataplane("backend-01", "backend", port=80)
PERMISSIVE = MTLS.replace("type: builtin", "type: builtin, mode: PERMISSIVE")
Seen = Mapping[tuple[str, str, str], int]
"""Connections by caller, how and outcome."""


def is_on(cp: Running) -> bool:
    """Mutual TLS has been switched on for the Dataplane, as far as this control plane has heard."""
    view = cp.parts.views.view("default")
    return bool(view.dataplanes) and view.transition is not None and view.transition.spec.complete


async def seen(cp: Running) -> Seen:
    async with httpx.AsyncClient(verify=NOBODY, trust_env=False, timeout=PATIENCE) as client:
        answer = await client.get(f"http://localhost:{await cp.api_port()}/meshes/default/observed-traffic")
        return {(one["caller"], one["how"], one["outcome"]): one["connections"] for one in answer.json()["items"]}


async def reported(found: Several, cp: Running, *entries: Any) -> None:
    """The proxy of the backend reports this to one of the control planes, which takes its time over it."""
    telling = aio.spawn(report(cp, cp.token(name="backend-01"), *entries), name="reports")
    await found.until(telling.done)
    assert telling.result() is grpc.StatusCode.OK


async def shown_by_all(found: Several, expected: Seen) -> None:
    """Return once every control plane shows exactly this, while time goes on."""
    async with asyncio.timeout(PATIENCE):
        while any([await seen(plane) != expected for plane in found.planes]):
            await found.later(10, step=2)


async def test_what_one_control_plane_hears_the_others_show_and_all_of_it_outlives_them(
    postgres: tuple[str, ...], tmp_path: Path
) -> None:
    in_clear, by_mesh = ("10.0.0.9", "plaintext", "allowed"), ("web", "meshTls", "allowed")
    async with several(postgres, tmp_path, 2) as found:
        one, other = found.planes
        await one.apply(PERMISSIVE, ALLOW_ALL)
        await one.apply_resource(BACKEND)
        await found.until(lambda: all(is_on(plane) for plane in found.planes))
        await reported(found, one, entry("plaintext"))
        await shown_by_all(found, {in_clear: 1})
        # Its proxy has gone to the other one, where it is called by somebody else, too.
        await reported(found, other, entry("plaintext"), entry("mesh_tls", "spiffe://default/web"))
        await shown_by_all(found, {in_clear: 2, by_mesh: 1})
        await reported(found, one, entry("plaintext"))  # which is written when that control plane ends
    async with several(postgres, tmp_path / "later", 2) as found:
        await shown_by_all(found, {in_clear: 3, by_mesh: 1})
