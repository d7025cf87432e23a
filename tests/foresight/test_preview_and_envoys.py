"""What a preview says of who would be refused is what real Envoys then do: a sample of what is tried by rules alone in
`test_preview_is_true`."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from kuma.base.tls.trust import NOBODY
from kuma.resources import codec
from kuma.resources.resource import Key, Resource
from tests.fakes.control_plane import Running, resource, running
from tests.fakes.patience import PATIENCE
from tests.foresight.test_preview_is_true import MODES, legacy, targeting
from tests.integration.sidecars import Sidecars, http_status, sidecars, until

SERVICES = ("web", "api", "db")
TAGS = {"web": ", env: dev", "api": "", "db": ", env: prod"}
STRANGER = "127.0.0.1"
EDITS = 5
Call = tuple[str, str]


@pytest.fixture
async def cp(tmp_path: Path) -> AsyncIterator[Running]:
    async with running(tmp_path) as found:
        yield found


@pytest.fixture
async def mesh(cp: Running, tmp_path: Path) -> AsyncIterator[Sidecars]:
    async with sidecars(cp, tmp_path) as found:
        yield found


def drawn(chance: random.Random) -> list[Resource[Any]]:
    """A mesh with mutual TLS, and one permission of each kind at most: of several that come at once it is not known
    which will be the newest."""
    found = [resource(f"{{type: Mesh, name: default{MODES[chance.choice(['PERMISSIVE', 'STRICT'])]}}}")]
    services = ("*", *SERVICES)
    if chance.random() < 0.7:
        callers = [{"kuma.io/service": chance.choice(services)}, {"kuma.io/service": "*", "env": "dev"}]
        target = {"kuma.io/service": chance.choice(services)}
        found.append(legacy("a", chance.sample(callers, chance.randint(1, 2)), target))
    if chance.random() < 0.7:
        tags = [*(f"kuma.io/service: {service}" for service in SERVICES), "env: dev", "env: prod"]
        actions = ("Allow", "Allow", "Deny", "AllowWithShadowDeny")
        rules = [(tag, chance.choice(actions)) for tag in chance.sample(tags, chance.randint(1, 3))]
        found.append(targeting("c", chance.choice(("", *SERVICES)), rules))
    return found


async def admitted(mesh: Sidecars) -> set[Call]:
    """Who reaches whom."""
    found = set()
    for caller in mesh.started:
        for called in mesh.started:
            if caller is not called and await caller.call(called.name) == 200:
                found.add((caller.name, called.name))
        if await http_status(caller.port) == 200:
            found.add((STRANGER, caller.name))
    return found


async def admitted_as_a_rule(mesh: Sidecars) -> set[Call]:
    """Who reaches whom, twice: what fails once while connections end is not what was asked."""
    async with asyncio.timeout(PATIENCE):
        found = await admitted(mesh)
        while (again := await admitted(mesh)) != found:
            found = again
    return found


async def ask(cp: Running, method: str, path: str, **arguments: Any) -> dict[str, Any]:
    async with httpx.AsyncClient(verify=NOBODY, trust_env=False) as client:
        answer = await client.request(method, f"http://localhost:{await cp.api_port()}{path}", **arguments)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found


async def said(cp: Running, after: Sequence[Resource[Any]], gone: Sequence[Key]) -> dict[str, set[Call]]:
    """What a preview says, by effect. All have outbounds to all: who was not seen to call is named, too."""
    deleted = [{"type": key.kind, "mesh": key.mesh, "name": key.name} for key in gone]
    body = {"resources": [codec.to_universal(one) for one in after], "delete": deleted}
    (item,) = (await ask(cp, "POST", "/preview", json=body))["items"]
    found: dict[str, set[Call]] = {"refused": set(), "admitted": set(), "wouldBeRefused": set()}
    for caller in item["callers"]:
        found[caller["effect"]].add((caller["caller"], caller["service"]))
    return found


async def test_real_envoys_refuse_whom_a_preview_says_they_would(cp: Running, mesh: Sidecars) -> None:
    chance = random.Random(15)
    now: dict[Key, Resource[Any]] = {}
    await cp.apply(f"{{type: Mesh, name: default{MODES['PERMISSIVE']}}}")
    for service in SERVICES:
        others = tuple(other for other in SERVICES if other != service)
        await mesh.start(service, calls=others, tags=TAGS[service])

    async def strangers_are_known() -> bool:
        for one in mesh.started:
            await http_status(one.port)
        seen = (await ask(cp, "GET", "/meshes/default/observed-traffic"))["items"]
        return {one["service"] for one in seen if one["how"] == "plaintext"} == set(SERVICES)

    await until("callers in plaintext are known", strangers_are_known)
    for edit in range(EDITS):
        before = await admitted_as_a_rule(mesh)
        after = drawn(chance)
        gone = [key for key in now if key not in {one.key for one in after}]
        told = await said(cp, after, gone)
        for one in after:
            await cp.apply_resource(one)
        for key in gone:
            await cp.parts.manager.delete(key)
        await cp.parts.views.until(lambda gone=gone: not any(cp.parts.views.view("default").find(key) for key in gone))  # type: ignore[misc]
        now = {one.key: one for one in after if one.key.kind != "Mesh"}
        await mesh.converged()

        async def as_it_was_said(before: set[Call] = before, told: dict[str, set[Call]] = told) -> bool:
            real = await admitted(mesh)
            return before - real == told["refused"] and told["admitted"] <= real

        await until(f"edit {edit}: {[codec.as_declared(one) for one in after]}: {told}", as_it_was_said)
