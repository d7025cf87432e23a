"""Whether a proxy that ends has a successor which another control plane is about to show."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from kuma.coordination.coordination import Alone
from kuma.resources.resource import Key, Resource
from kuma.resources.view import MeshView
from kuma.xds.envoy.services import serving_label
from kuma.xds.proxies.readiness.successors import Successors
from tests.fakes.control_plane import dataplane
from tests.fakes.largest import counted, crowd


class Another(Alone):
    """Another control plane, to which everybody is connected."""

    def others(self) -> frozenset[str]:
        return frozenset({"another"})

    def has(self, dataplane: Key) -> bool:
        return True


def of(dataplanes: Iterable[Resource[Any]]) -> Successors:
    view = MeshView("default", dataplanes={one.name: one for one in dataplanes})
    return Successors(lambda _: view, Another())


def test_they_are_awaited_if_nobody_else_serves() -> None:
    leaving, other = dataplane("a-1", "a"), dataplane("a-2", "a")
    coming, ended = serving_label.as_not_serving(other), serving_label.as_ended(other)
    elsewhere = serving_label.as_not_serving(dataplane("b-1", "b"))
    assert of([leaving, coming]).are_about_to_come(leaving.key)
    for others in ([], [other], [ended], [elsewhere], [coming, dataplane("a-3", "a")]):
        assert not of([leaving, *others]).are_about_to_come(leaving.key)
    assert not of([coming]).are_about_to_come(leaving.key)


async def test_many_that_end_at_once_ask_again_without_looking_at_all_others() -> None:
    everybody = [serving_label.as_not_serving(one) for one in crowd(1000)]
    successors = of(everybody)
    async with counted() as calls:
        for leaving in everybody[:100]:
            assert successors.are_about_to_come(leaving.key)
        await asyncio.sleep(0)
    assert calls.most < 100_000, "one search for each takes a million"
