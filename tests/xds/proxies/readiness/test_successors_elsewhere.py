"""The last proxy of a service goes when callers know the one that another control plane has in its place."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx

from kuma.base import aio
from kuma.xds.envoy.services import serving_label
from tests.fakes.control_plane import Running, dataplane
from tests.fakes.patience import PATIENCE
from tests.fakes.several import several

OLD, NEW, OTHER = dataplane("backend-01", "backend"), dataplane("backend-02", "backend"), dataplane("other-01", "other")


def serving(cp: Running) -> int:
    """How many proxies of the backend callers are sent to."""
    found = cp.parts.views.view("default").dataplanes.values()
    return sum(serving_label.is_serving(one) for one in found if "backend" in one.spec.services)


async def withdraw(cp: Running) -> None:
    """The proxy of the old one says that it ends."""
    body = {"mesh": "default", "name": OLD.name, "dataplaneToken": cp.token()}
    async with httpx.AsyncClient(verify=False, timeout=PATIENCE) as client:
        answer = await client.post(f"https://localhost:{await cp.parts.dp.port()}/withdraw", json=body)
    assert answer.is_success, answer.text


def waits_for_a_successor() -> bool:
    return any(task.get_name().startswith("successors of") for task in asyncio.all_tasks())


async def test_the_last_one_of_a_service_goes_when_its_successor_at_another_control_plane_is_shown(
    postgres: tuple[str, ...], tmp_path: Path
) -> None:
    async with several(postgres, tmp_path, 2) as two:
        here, there = two.planes
        await here.proxy(OLD)
        await two.until(lambda: serving(here) == 1)
        shown, collecting, counts = asyncio.Event(), asyncio.Event(), list[int]()

        async def pause(_: float) -> None:
            collecting.set()
            await shown.wait()

        dict[str, Any](there.parts.components)["endpoint readiness"]._writes._pause = pause
        await there.proxy(OTHER)
        await two.until(collecting.is_set)
        await there.proxy(NEW)
        await two.until(lambda: (found := there.parts.proxies.get(NEW.key)) and found.serves)
        await two.until(lambda: here.parts.coordination.has(NEW.key) and serving(here) == 1)
        here.parts.views.on_change(lambda _: counts.append(serving(here)))
        withdrawing = aio.spawn(withdraw(here), name="withdrawing")
        await two.until(lambda: withdrawing.done() or waits_for_a_successor(), paused=(0, 1))
        shown.set()
        async with asyncio.timeout(PATIENCE):
            await withdrawing
        assert 0 not in counts, "callers had nobody for a moment"
        assert serving(here) == 1
