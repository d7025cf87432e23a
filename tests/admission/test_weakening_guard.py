"""What weakens a mesh is told, whoever changes it, and refused where the mesh, or the control plane, is guarded."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from kuma.base.errors import InvalidResource, WeakeningRefused
from kuma.resources import kinds
from tests.fakes.control_plane import ALLOW_ALL, MTLS, Running, resource, running

BARE = "{type: Mesh, name: default}"
GUARDED = MTLS.replace("name: default", "name: default, labels: {kuma.io/weakening: refused}")
PERMISSIVE = GUARDED.replace("type: builtin", "type: builtin, mode: PERMISSIVE")
NARROW = ALLOW_ALL.replace("allow-all", "narrow").replace("'*'", "web")
DENY = (
    "{type: MeshTrafficPermission, mesh: default, name: deny, spec: {targetRef: {kind: Mesh}, from: ["
    "{targetRef: {kind: Mesh}, default: {action: Allow}}, "
    "{targetRef: {kind: MeshSubset, tags: {env: dev}}, default: {action: Deny}}]}}"
)
ALLOW = DENY.replace(", {targetRef: {kind: MeshSubset, tags: {env: dev}}, default: {action: Deny}}", "")


async def told(cp: Running, text: str) -> list[str]:
    """What a change weakens."""
    outcome = await cp.parts.manager.put(resource(text))
    await cp.parts.views.until(lambda: cp.parts.views.holds(outcome.resource))
    assert set(outcome.weakens) <= set(outcome.warnings)
    return [text.removeprefix("this weakens the mesh: ") for text in outcome.weakens]


async def deleted(cp: Running, text: str) -> list[str]:
    deletion = await cp.parts.manager.delete(resource(text).key)
    return [text.removeprefix("this weakens the mesh: ") for text in deletion.weakens]


async def test_what_weakens_is_told_with_its_consequence(tmp_path: Path) -> None:
    async with running(tmp_path) as cp:
        assert await told(cp, ALLOW_ALL) == [], "without mutual TLS everybody is admitted anyway"
        assert await told(cp, MTLS) == []
        assert await told(cp, NARROW) == []
        (lifted,) = await deleted(cp, NARROW)
        assert lifted.startswith("sources: all callers with an identity of the mesh are admitted by inbounds with ")
        assert await deleted(cp, ALLOW_ALL) == []
        (everybody,) = await told(cp, ALLOW_ALL)
        assert everybody.startswith("sources: all callers with an identity of the mesh are admitted by every inbound")
        assert await told(cp, DENY) == []
        (dev,) = await told(cp, ALLOW)
        assert dev.startswith("spec.from: callers with env=dev are admitted by every inbound")
        assert await told(cp, DENY) == []
        shadow = DENY.replace("name: deny", "name: deny, labels: {kuma.io/effect: shadow}")
        assert [text[:36] for text in await told(cp, shadow)] == ["spec.from: callers with env=dev are "]
        (permissive,) = await told(cp, MTLS.replace("type: builtin", "type: builtin, mode: PERMISSIVE"))
        assert "plaintext callers are admitted" in permissive
        (off,) = await told(cp, BARE)
        assert off.startswith("mtls: is left out: this turns mutual TLS off, plaintext is sent and admitted")
        assert await told(cp, BARE) == []


async def test_a_guarded_mesh_refuses_to_be_weakened_unless_that_is_asked_for(tmp_path: Path) -> None:
    async with running(tmp_path) as cp:
        for text in (DENY, GUARDED):
            assert await told(cp, text) == []
        manager = cp.parts.manager
        before = await manager.get(kinds.MESH.key("default"))
        for text in (BARE, MTLS, PERMISSIVE, ALLOW, GUARDED.replace("enabledBackend: ca-1, ", "")):
            with pytest.raises(InvalidResource, match="refuses what weakens it unless that is asked for"):
                await manager.put(resource(text))
        with pytest.raises(InvalidResource, match="its guard are deleted with it"):
            await manager.delete(before.key)
        assert await manager.get(before.key) == before
        assert await told(cp, NARROW) == [], "who is named is meant"
        weakened = await manager.put(resource(ALLOW), allow_weakening=True)
        assert len(weakened.weakens) == 1
        assert len((await manager.put(resource(BARE), allow_weakening=True)).weakens) == 2, "the guard goes, too"
        assert await told(cp, MTLS) == []
        assert len(await told(cp, BARE)) == 1, "it is told, and done"


async def test_deleting_a_denial_immediately_after_it_was_made_is_seen(tmp_path: Path) -> None:
    """By what is stored, and not by a view that may not have it yet."""
    async with running(tmp_path) as cp:
        for text in (GUARDED, ALLOW_ALL):
            await cp.parts.manager.put(resource(text), allow_weakening=True)
        await cp.parts.manager.put(resource(NARROW))
        with pytest.raises(InvalidResource, match="all callers with an identity"):
            await cp.parts.manager.delete(resource(NARROW).key)
        assert len((await cp.parts.manager.delete(resource(NARROW).key, allow_weakening=True)).weakens) == 1


async def test_two_changes_at_once_weaken_no_more_than_each_may_alone(tmp_path: Path) -> None:
    """Each denial may go as long as the other one stays; both were judged before either had gone."""
    denial = (
        "{{type: MeshTrafficPermission, mesh: default, name: {}, spec: {{targetRef: {{kind: Mesh}}, from: ["
        "{{targetRef: {{kind: MeshSubset, tags: {{env: dev}}}}, default: {{action: Deny}}}}]}}}}"
    )
    first, second = resource(denial.format("first")), resource(denial.format("second"))
    shadow = resource(denial.format("second").replace("name: second", "name: second, labels: {kuma.io/effect: shadow}"))
    async with running(tmp_path) as cp:
        manager = cp.parts.manager
        for text in (GUARDED, ALLOW):
            await manager.put(resource(text), allow_weakening=True)
        for other in (lambda: manager.delete(second.key), lambda: manager.put(shadow)):
            for one in (first, second):
                outcome = await manager.put(one)
                await cp.parts.views.until(lambda: cp.parts.views.holds(outcome.resource))  # noqa: B023 - at once
            done = await asyncio.gather(manager.delete(first.key), other(), return_exceptions=True)
            assert [type(each) for each in done].count(WeakeningRefused) == 1, done


async def test_a_guarded_control_plane_guards_every_mesh_that_does_not_say_otherwise(tmp_path: Path) -> None:
    allowed = MTLS.replace("name: default", "name: default, labels: {kuma.io/weakening: allowed}")
    async with running(tmp_path, defaults={"refuse_weakening": True}) as cp:
        assert await told(cp, MTLS) == []
        for text in (BARE, allowed, ALLOW_ALL):
            with pytest.raises(InvalidResource, match="unless that is asked for"):
                await cp.parts.manager.put(resource(text))
        await cp.parts.manager.put(resource(allowed), allow_weakening=True)
        assert len(await told(cp, BARE)) == 1


@pytest.mark.parametrize("label", ["kuma.io/weakening: never", "kuma.io/authority: soon"])
async def test_labels_that_say_nothing_are_refused(tmp_path: Path, label: str) -> None:
    async with running(tmp_path) as cp:
        with pytest.raises(InvalidResource, match=r'labels\["kuma.io/'):
            await cp.parts.manager.put(resource(f"{{type: Mesh, name: default, labels: {{{label}}}}}"))


async def test_permissions_that_come_with_a_new_mesh_weaken_nothing(tmp_path: Path) -> None:
    """Nobody has got a certificate of it yet: what is applied together is one declaration, under a guard, too."""
    created = GUARDED.replace("name: default, labels: {", "name: new, labels: {kuma.io/authority: awaited, ")
    everybody = resource(ALLOW_ALL.replace("mesh: default", "mesh: new"))
    async with running(tmp_path, defaults={"refuse_weakening": True}) as cp:
        await cp.parts.manager.put(resource(created))
        assert (await cp.parts.manager.put(everybody)).weakens == ()
        await cp.parts.manager.delete(everybody.key)
        await cp.parts.manager.put(resource(created.replace("kuma.io/authority: awaited, ", "")))
        with pytest.raises(InvalidResource, match="all callers with an identity"):
            await cp.parts.manager.put(everybody)
