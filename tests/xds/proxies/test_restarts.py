"""What a control plane that begins inside a change, or after one, takes proxies to run that have not come back yet."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kuma.resources import kinds
from kuma.resources.models.mesh_transition import Level, MeshTransitionSpec
from kuma.resources.resource import Resource
from tests.fakes.clock import ManualClock
from tests.fakes.control_plane import MTLS, Running, dataplane, running
from tests.fakes.patience import PATIENCE
from tests.fakes.proxy import FakeProxy

WEB, BACKEND = dataplane("web-01", "web"), dataplane("backend-01", "backend")
OTHER = MTLS.replace("enabledBackend: ca-1", "enabledBackend: ca-2").replace("name: ca-1", "name: ca-2")


async def both(cp: Running, clock: ManualClock) -> tuple[FakeProxy, FakeProxy]:
    """The two proxies, once it is on record that they have run something."""
    for described in (WEB, BACKEND):
        await cp.apply_resource(described)
    web, backend = await cp.proxy(WEB, bring=False), await cp.proxy(BACKEND, bring=False)
    await cp.settled(2)
    async with asyncio.timeout(PATIENCE):
        while (await cp.parts.manager.list(kinds.DATAPLANE_INSIGHT.name)).total < 2:
            clock.advance(1)  # insights are held back for a moment
            await asyncio.sleep(0.02)
    return web, backend


async def runs_all(cp: Running, described: Resource[Any]) -> None:
    """Return once a proxy runs what it should."""
    async with asyncio.timeout(PATIENCE):
        while (proxy := cp.parts.proxies.get(described.key)) is None or not proxy.converged:
            await asyncio.sleep(0.01)


async def transition(cp: Running, holds: Callable[[MeshTransitionSpec], Any]) -> MeshTransitionSpec:
    """The stored transition, once it is as expected."""

    def found() -> MeshTransitionSpec:
        stored = cp.parts.views.view("default").transition
        return stored.spec if stored else MeshTransitionSpec()

    await cp.until(lambda: holds(found()))
    return found()


async def change_without_web(cp: Running, clock: ManualClock) -> None:
    """Mutual TLS is being turned on: backend has taken the first step, web answers no more."""
    web, _ = await both(cp, clock)
    web.silent = True
    await cp.apply(MTLS)
    await transition(cp, lambda found: found.position.level is Level.ACCEPTING)
    await runs_all(cp, BACKEND)


async def test_who_has_not_come_back_since_a_restart_inside_a_change_is_waited_for(tmp_path: Path) -> None:
    clock = ManualClock()
    async with running(tmp_path, clock) as cp:
        await change_without_web(cp, clock)
    async with running(tmp_path, clock) as cp:
        await cp.proxy(BACKEND, bring=False)
        await runs_all(cp, BACKEND)
        await cp.looked_around()
        assert cp.parts.views.view("default").position.level is Level.ACCEPTING, "web may be plaintext only"
        clock.advance(16)
        await transition(cp, lambda found: found.position.level is Level.STRICT)


async def test_who_was_given_up_before_a_restart_holds_up_nothing_after_it(tmp_path: Path) -> None:
    clock = ManualClock()
    async with running(tmp_path, clock) as cp:
        await change_without_web(cp, clock)
        clock.advance(31)
        first = await transition(cp, lambda found: found.position.level is Level.STRICT and found.unresponsive)
    async with running(tmp_path, clock) as cp:
        await cp.proxy(BACKEND, bring=False)
        await runs_all(cp, BACKEND)
        await cp.apply(OTHER)
        last = await transition(cp, lambda found: found.position.authority != first.position.authority)
        assert [awaited.name for awaited in last.unresponsive] == ["web-01"]
        assert not last.complete


async def test_what_was_complete_before_a_restart_is_run_by_whoever_is_away_since_then(tmp_path: Path) -> None:
    clock = ManualClock()
    async with running(tmp_path, clock) as cp:
        await cp.apply(MTLS)
        await both(cp, clock)
        await transition(cp, lambda found: found.complete and found.followers == 2)
    async with running(tmp_path, clock) as cp:
        clock.advance(3600)
        await cp.proxy(BACKEND, bring=False)
        await runs_all(cp, BACKEND)
        await cp.looked_around()
        found = await transition(cp, lambda found: found.complete)
        assert (found.followers, found.acknowledged) == (2, 2)
