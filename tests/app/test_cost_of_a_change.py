"""What a change costs does not grow with what it does not concern: counted in calls of functions."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from kuma.resources import kinds
from kuma.resources.resource import Resource
from kuma.store.protocol import Create
from tests.fakes.clock import ManualClock
from tests.fakes.control_plane import ALLOW_ALL, MTLS, Running, dataplane, resource, running

FEW, MANY = 20, 400
"""Twenty times as much of what is not concerned."""


class Counted:
    """Calls of functions of ours in the loop's thread, from the beginning of the block to its end."""

    def __init__(self) -> None:
        self.calls = 0

    def _count(self, frame: FrameType, event: str, _argument: object) -> None:
        if event == "call" and "/kuma/" in frame.f_code.co_filename:
            self.calls += 1

    def __enter__(self) -> Counted:
        sys.setprofile(self._count)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)


async def stored(cp: Running, resources: Sequence[Resource[Any]]) -> None:
    """Stores many at once, and returns when the control plane has followed."""
    owner = kinds.MESH.key("default")
    made = await cp.parts.manager.store.transact([Create(one, owner if one.mesh else None) for one in resources])
    await cp.parts.views.until(lambda: all(cp.parts.views.holds(one) for one in made))
    await cp.looked_around()


async def cheapest(cp: Running, edits: Iterable[Resource[Any]]) -> int:
    """Counts the calls of the cheapest of several edits: what else is under way comes on top of some of them."""
    found = list[int]()
    for edit in edits:
        with Counted() as counted:
            await cp.apply_resource(edit)
        found.append(counted.calls)
    return min(found)


def mesh(name: str, backend: str = "") -> Resource[Any]:
    return resource(f"{{type: Mesh, name: {name}, metrics: {{backends: [{{name: p{backend}, type: prometheus}}]}}}}")


async def test_an_edit_of_a_mesh_costs_the_same_however_many_others_there_are(tmp_path: Path) -> None:
    async with running(tmp_path, ManualClock()) as cp:
        await cp.apply(MTLS, ALLOW_ALL, "{type: Mesh, name: edited}")
        costs = list[int]()
        for numbers in (range(FEW), range(FEW, MANY)):
            await stored(cp, [mesh(f"other-{number}") for number in numbers])
            costs.append(await cheapest(cp, [mesh("edited", f"{len(numbers)}-{i}") for i in range(8)]))
        assert costs[1] < 2 * costs[0], costs


async def test_an_edit_of_a_dataplane_costs_the_same_however_many_others_there_are(tmp_path: Path) -> None:
    async with running(tmp_path, ManualClock()) as cp:
        await cp.apply(MTLS, ALLOW_ALL)
        costs = list[int]()
        for numbers in (range(FEW), range(FEW, MANY)):
            await stored(cp, [dataplane(f"other-{number}", f"service-{number}") for number in numbers])
            ports = range(1000 + len(numbers), 1008 + len(numbers))
            costs.append(await cheapest(cp, [dataplane("edited", "edited", port=port) for port in ports]))
        assert costs[1] < 2 * costs[0], costs
