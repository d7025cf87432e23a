"""Permissions by tags that a control plane finds when it begins decide about those only who can show the tags."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from kuma.policy.authorization import Principal
from kuma.policy.succession import Stage
from kuma.resources import kinds
from kuma.store.manager import ResourceManager
from kuma.store.protocol import Delete
from kuma.store.sql.embedded.sqlite import open_sqlite
from tests.fakes.clock import ManualClock
from tests.fakes.control_plane import ALLOW_ALL, MTLS, Running, dataplane, resource, running
from tests.fakes.patience import PATIENCE
from tests.fakes.proxy import FakeProxy

WEB, BACKEND = dataplane("web-01", "web", port=81, tags=", env: prod"), dataplane("backend-01", "backend")
ALLOWED_BY_TAG = (
    "{type: TrafficPermission, mesh: default, name: prod, sources: [{match: {kuma.io/service: '*', env: prod}}], "
    "destinations: [{match: {kuma.io/service: backend}}]}"
)
DENIED_BY_TAG = (
    "{type: MeshTrafficPermission, mesh: default, name: no-prod, spec: {targetRef: {kind: Mesh}, from: ["
    "{targetRef: {kind: Mesh}, default: {action: Allow}}, "
    "{targetRef: {kind: MeshSubset, tags: {env: prod}}, default: {action: Deny}}]}}"
)
OLD, NEW = {"kuma.io/service": "web"}, {"kuma.io/service": "web", "env": "prod"}
OTHER = {"kuma.io/service": "backend"}
PATIENCE_WITH_LEAVES, DRAIN = 31, 31
"""Seconds, a little more than the settings have."""


def stage(cp: Running) -> Stage:
    return cp.parts.meshes.state("default").config.stage


def admits(cp: Running, leaf: dict[str, str]) -> bool:
    """Whether the backend admits a caller with this leaf."""
    config = cp.parts.meshes.state("default").config
    found = config.admissions.admission_of(BACKEND, BACKEND.spec.net.inbound[0])

    def meant(principals: Iterable[Principal]) -> bool:
        return any(
            set(principal.tags) <= set(leaf.items()) and not (principal.lacks and set(principal.lacks) <= leaf.keys())
            for principal in principals
        )

    return meant(found.principals) and not meant(found.denied)


async def leaves_on_record(cp: Running, clock: ManualClock) -> tuple[FakeProxy, FakeProxy]:
    """Both proxies, once it is stored what their leaves show."""
    for described in (WEB, BACKEND):
        await cp.apply_resource(described)
    web, backend = await cp.proxy(WEB, bring=False), await cp.proxy(BACKEND, bring=False)
    await cp.settled(2)
    insights: list[bool] = []
    async with asyncio.timeout(PATIENCE):
        while insights != [True, True]:
            clock.advance(1)  # insights are held back for a moment
            await asyncio.sleep(0.02)
            stored = (await cp.parts.manager.list(kinds.DATAPLANE_INSIGHT.name)).items
            insights = [bool(found.spec.mtls) for found in stored]
    return web, backend


async def stored_and_killed(directory: Path, clock: ManualClock, text: str) -> None:
    """A control plane stores this, and is killed before anybody is told."""
    store = await open_sqlite(directory / "kuma.db", clock)
    try:
        await ResourceManager(store, {}).put(resource(text))
    finally:
        await store.close()


@asynccontextmanager
async def begun_again(directory: Path, clock: ManualClock, text: str) -> AsyncIterator[Running]:
    """A control plane that finds at its start what nobody was told of; of the proxies, the backend is back."""
    async with running(directory, clock) as cp:
        await cp.apply(MTLS, ALLOW_ALL)
        await leaves_on_record(cp, clock)
    await stored_and_killed(directory, clock, text)
    async with running(directory, clock) as cp:
        await cp.proxy(BACKEND, bring=False)
        await cp.settled(1)
        await cp.looked_around()
        yield cp


async def web_comes_back(cp: Running) -> None:
    """Until what was opened with other leaves than it has now is drained."""
    await cp.proxy(WEB, bring=False)
    await cp.settled(2)
    await cp.until(lambda: stage(cp).renamed == 1)


@pytest.mark.parametrize(("permission", "admitted"), [(ALLOWED_BY_TAG, True), (DENIED_BY_TAG, False)])
async def test_who_cannot_show_a_tag_yet_is_taken_for_what_is_declared_of_them(
    permission: str, admitted: bool, tmp_path: Path
) -> None:
    clock = ManualClock()
    async with begun_again(tmp_path, clock, permission) as cp:
        for leaf in (OLD, NEW):
            assert admits(cp, leaf) is admitted, "web has not come back yet: it shows what it had"
        assert admits(cp, OTHER) is not admitted
        await web_comes_back(cp)
        assert admits(cp, OLD) is admitted
        clock.advance(DRAIN)
        await cp.until(lambda: not stage(cp).unproved)
        assert admits(cp, NEW) is admitted
        assert admits(cp, OLD) is not admitted, "only what a leaf shows counts again"


async def test_who_does_not_come_back_is_not_waited_for_without_end(tmp_path: Path) -> None:
    clock = ManualClock()
    async with begun_again(tmp_path, clock, ALLOWED_BY_TAG) as cp:
        assert stage(cp).unproved == {"web"}
        clock.advance(PATIENCE_WITH_LEAVES)
        await cp.until(lambda: stage(cp).renamed == 1)
        clock.advance(DRAIN)
        await cp.until(lambda: not stage(cp).unproved)
        assert not admits(cp, OLD)


async def test_where_leaves_show_what_is_looked_at_a_restart_changes_nothing(tmp_path: Path) -> None:
    clock = ManualClock()
    async with running(tmp_path, clock) as cp:
        await cp.apply(MTLS, ALLOWED_BY_TAG)
        await leaves_on_record(cp, clock)
    async with running(tmp_path, clock) as cp:
        await cp.proxy(BACKEND, bring=False)
        await cp.settled(1)
        await cp.looked_around()
        assert (stage(cp).unproved, stage(cp).renamed) == (frozenset(), 0)
        assert (admits(cp, NEW), admits(cp, OLD)) == (True, False)


WITHOUT_TAG = dataplane("web-02", "web", port=82)


async def noted(cp: Running) -> int:
    """How many permissions it is noted of what they were."""
    return (await cp.parts.manager.list(kinds.CONFIG.name, name_contains=kinds.FORMER_PERMISSION)).total


async def delete_notes(directory: Path, clock: ManualClock) -> None:
    """As another control plane does."""
    store = await open_sqlite(directory / "kuma.db", clock)
    try:
        notes = (await store.list(kinds.CONFIG.name, name_contains=kinds.FORMER_PERMISSION)).items
        assert notes
        await store.transact([Delete(note.key) for note in notes])
    finally:
        await store.close()


@asynccontextmanager
async def begun_in_the_middle(
    directory: Path, clock: ManualClock, text: str, *, forgotten: bool = False
) -> AsyncIterator[Running]:
    """A control plane that begins while a service that has the tag in part has leaves that cannot show it.

    What was noted is `forgotten` if another one, whose own proxies have followed already, has deleted it.
    """
    async with running(directory, clock) as cp:
        await cp.apply(MTLS, ALLOW_ALL)
        await cp.apply_resource(WITHOUT_TAG)
        for proxy in await leaves_on_record(cp, clock):
            await proxy.disconnect()
        for described in (WEB, BACKEND):
            await cp.disconnected(described)
        await cp.apply(text)
        assert await noted(cp) == 1
        await cp.looked_around()
        assert stage(cp).before is not None, "who comes from another control plane goes by the permissions before, too"
    async with running(directory, clock) as cp:
        await cp.looked_around()
    if forgotten:
        await delete_notes(directory, clock)
    async with running(directory, clock) as cp:
        await cp.proxy(BACKEND, bring=False)
        await cp.settled(1)
        await cp.looked_around()
        yield cp


@pytest.mark.parametrize(("permission", "admitted"), [(ALLOWED_BY_TAG, True), (DENIED_BY_TAG, False)])
async def test_who_was_admitted_before_is_over_a_restart_though_others_of_the_service_have_not_the_tag(
    permission: str, admitted: bool, tmp_path: Path
) -> None:
    clock = ManualClock()
    async with begun_in_the_middle(tmp_path, clock, permission) as cp:
        for leaf in (OLD, NEW):
            assert admits(cp, leaf) is admitted, "web has not come back yet: the permissions before decide"
        await web_comes_back(cp)
        assert admits(cp, OLD) is admitted
        clock.advance(DRAIN)
        await cp.until(lambda: stage(cp).before is None)
        assert admits(cp, NEW) is admitted
        assert admits(cp, OLD) is not admitted, "only what a leaf shows counts again"
        async with asyncio.timeout(PATIENCE):
            while await noted(cp):
                await asyncio.sleep(0.01)


@pytest.mark.parametrize(("permission", "of_the_tag"), [(ALLOWED_BY_TAG, True), (DENIED_BY_TAG, False)])
async def test_where_another_control_plane_has_deleted_what_was_noted_nobody_gets_in_by_what_they_cannot_show(
    permission: str, of_the_tag: bool, tmp_path: Path
) -> None:
    """They are refused for as long as proxies are waited for and connections are drained."""
    clock = ManualClock()
    async with begun_in_the_middle(tmp_path, clock, permission, forgotten=True) as cp:
        assert stage(cp).before is None, "nobody knows what decided before"
        assert not admits(cp, OLD)
        assert admits(cp, NEW) is of_the_tag, "who shows the tag is judged by it from the beginning"
        assert admits(cp, OTHER) is not of_the_tag
        clock.advance(PATIENCE_WITH_LEAVES)
        await cp.until(lambda: stage(cp).renamed == 1)
        assert not admits(cp, OLD)
        clock.advance(DRAIN)
        await cp.until(lambda: not stage(cp).unproved)
        assert admits(cp, OLD) is not of_the_tag, "only what a leaf shows counts again"


async def test_nothing_is_noted_of_permissions_that_look_at_no_new_tag(tmp_path: Path) -> None:
    """And what is noted goes with the last permission that looks at one."""
    clock = ManualClock()
    async with running(tmp_path, clock) as cp:
        await cp.apply(MTLS, ALLOW_ALL)
        assert await noted(cp) == 0
        await leaves_on_record(cp, clock)
        await cp.apply(ALLOWED_BY_TAG)
        await cp.delete(ALLOW_ALL)
        assert await noted(cp) == 2
        await cp.apply(ALLOW_ALL)
        await cp.delete(ALLOWED_BY_TAG)
        async with asyncio.timeout(PATIENCE):
            while await noted(cp):
                await asyncio.sleep(0.01)
