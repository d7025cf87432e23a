"""Whom a TCP workload that speaks first ever sees: callers that are verified and admitted, and nobody else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes.control_plane import MTLS, Running
from tests.integration.changes import change, revoke
from tests.integration.clients import in_the_mesh, own_authority, with_leaf_of
from tests.integration.door import DEV, EVIL, GREETING, PROD, WEB, Door, other_authority
from tests.integration.sidecars import Sidecar, Sidecars, exchange, traffic, until

PERMISSIVE = MTLS.replace("type: builtin", "type: builtin, mode: PERMISSIVE")
BY_SERVICE = (
    "{type: TrafficPermission, mesh: default, name: web, sources: [{match: {kuma.io/service: web}}], "
    "destinations: [{match: {kuma.io/service: backend}}]}"
)


def rules(*items: tuple[str, str]) -> str:
    listed = ", ".join(f"{{targetRef: {{{ref}}}, default: {{action: {action}}}}}" for action, ref in items)
    return (
        "{type: MeshTrafficPermission, mesh: default, name: rules, "
        f"spec: {{targetRef: {{kind: Mesh}}, from: [{listed}]}}}}"
    )


EVERYBODY = ("Allow", "kind: Mesh")
NOT_DEV = ("Deny", "kind: MeshSubset, tags: {env: dev}")
WEB_OF_PROD = ("Allow", "kind: MeshServiceSubset, name: web, tags: {env: prod}")


@pytest.fixture
async def backend(cp: Running, mesh: Sidecars) -> Sidecar:
    await cp.apply(MTLS)
    found = await mesh.start("backend", protocol="tcp")
    found.greeting = GREETING
    return found


@pytest.fixture
async def door(cp: Running, backend: Sidecar, tmp_path: Path) -> AsyncIterator[Door]:
    found = Door(own_authority(cp), backend, tmp_path, await other_authority())
    yield found
    await found.close()


async def greeted(caller: Sidecar) -> bytes:
    """What the workload of a sidecar hears from `backend` without having said anything."""
    return await exchange(caller.outbounds["backend"], b"")


async def test_nothing_reaches_a_workload_but_whom_it_admits(
    cp: Running, mesh: Sidecars, backend: Sidecar, door: Door
) -> None:
    """For each way to admit; the last to call is one that is admitted: whoever came before is seen by then, or never.

    Two more of the same mesh are real proxies: one that is admitted all the time, and one that never is.
    """
    await cp.apply(BY_SERVICE)
    web = await mesh.start("web", protocol="tcp", calls=("backend",), tags=", env: prod")
    evil = await mesh.start("evil", protocol="tcp", calls=("backend",), tags=", env: dev")
    await mesh.converged()
    assert await until("web is greeted", lambda: greeted(web)) == GREETING

    for permission, admitted, refused in (
        (BY_SERVICE, (WEB,), [(EVIL,), (EVIL, PROD)]),
        (rules(EVERYBODY, NOT_DEV), (WEB,), [(WEB, DEV), (EVIL, DEV), (DEV, EVIL)]),
        (rules(WEB_OF_PROD), (WEB, PROD), [(WEB,), (EVIL, PROD), (WEB, DEV)]),
    ):
        await cp.apply(permission)
        await mesh.converged()
        seen = backend.reached
        await door.is_shut(*refused)
        assert await greeted(evil) == b""
        assert await door.hears(*admitted) == GREETING
        assert await greeted(web) == GREETING
        assert backend.reached == seen + 2, permission

    seen = backend.reached
    await revoke(cp, rules(WEB_OF_PROD))
    await revoke(cp, BY_SERVICE)
    await door.is_shut((WEB,), (EVIL,))
    await cp.apply(BY_SERVICE)
    assert await until("web is greeted", lambda: greeted(web)) == GREETING
    assert backend.reached == seen + 1


async def test_permissive_lets_the_mesh_in_as_strict_does(
    cp: Running, mesh: Sidecars, backend: Sidecar, door: Door, tmp_path: Path
) -> None:
    await cp.apply(rules(EVERYBODY, NOT_DEV))
    await change(cp, PERMISSIVE)
    await mesh.converged()
    assert (await exchange(backend.port, b"hello")).startswith(GREETING), "in the clear"
    seen = backend.reached
    await door.half_a_handshake()
    assert await door.hears(WEB, DEV) == b""
    expired = await with_leaf_of(own_authority(cp), tmp_path, WEB, expired=True)
    assert await exchange(backend.port, b"", in_the_mesh(expired)) == b""
    assert await door.hears(WEB) == GREETING
    assert backend.reached == seen + 1


async def test_whoever_stays_admitted_is_not_failed_by_another_rule(
    cp: Running, mesh: Sidecars, backend: Sidecar
) -> None:
    """From a rule that certificates alone decide to one that they do not, and back, under traffic."""
    await cp.apply(BY_SERVICE)
    web = await mesh.start("web", protocol="tcp", calls=("backend",), tags=", env: prod")
    assert await until("web is greeted", lambda: greeted(web)) == GREETING
    async with traffic(lambda: greeted(web)) as answers:
        for _ in range(3):
            await cp.apply(rules(EVERYBODY, NOT_DEV))
            await mesh.converged()
            await cp.apply(rules(EVERYBODY))
            await mesh.converged()
            await revoke(cp, rules(EVERYBODY))
    assert len(answers) >= 10
    assert set(answers) == {GREETING}
