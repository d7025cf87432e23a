"""Whom a TCP workload that speaks first ever sees: callers that are verified and admitted, and nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kuma.authorities import builtin
from kuma.base.clock import SystemClock
from kuma.pki.authority import LocalAuthority
from kuma.resources.models.mesh import Conf
from tests.fakes.control_plane import MTLS, Running
from tests.integration.changes import change, revoke
from tests.integration.clients import in_the_mesh, own_authority, with_leaf_of, without_certificate
from tests.integration.sidecars import Reader, Sidecar, Sidecars, Writer, exchange, traffic, until

PERMISSIVE = MTLS.replace("type: builtin", "type: builtin, mode: PERMISSIVE")
GREETING = b"220 at your service\r\n"
WEB, EVIL, DEV = "spiffe://default/web", "spiffe://default/evil", "kuma://env/dev"
PROD = "kuma://env/prod"
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


class Door:
    """The inbound of a workload that greets, as callers with a certificate of the test's choice see it."""

    def __init__(self, cp: Running, workload: Sidecar, directory: Path, other: LocalAuthority) -> None:
        self._own, self._other, self._workload, self._directory = own_authority(cp), other, workload, directory
        self._open = contextlib.AsyncExitStack()

    async def connect(self) -> tuple[Reader, Writer]:
        """A TCP connection that is kept until the end."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._workload.port)
        self._open.callback(writer.close)
        return reader, writer

    async def half_a_handshake(self) -> None:
        """A caller that has said hello, got the server's answer, and goes no further."""
        said, heard = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = in_the_mesh(without_certificate()).wrap_bio(heard, said)
        with contextlib.suppress(ssl.SSLWantReadError):
            client.do_handshake()
        reader, writer = await self.connect()
        writer.write(said.read())
        assert await reader.read(100)

    async def hears(self, *uris: str, says: bytes = b"") -> bytes:
        """What a caller hears first whose certificate holds."""
        context = await with_leaf_of(self._own, self._directory, *uris)
        return await exchange(self._workload.port, says, in_the_mesh(context))

    async def is_shut(self, *refused: tuple[str, ...]) -> None:
        """Have everybody call who is not let in: strangers, and those whose certificates say what is `refused`."""
        await self.connect()
        await self.half_a_handshake()
        strangers = [
            without_certificate(),
            await with_leaf_of(self._other, self._directory, WEB),
            await with_leaf_of(self._own, self._directory, WEB, expired=True),
        ]
        for said in (b"", b"hello"):
            for context in strangers:
                assert await exchange(self._workload.port, said, in_the_mesh(context)) == b""
            for uris in refused:
                assert await self.hears(*uris, says=said) == b"", uris

    async def close(self) -> None:
        await self._open.aclose()


@pytest.fixture
async def backend(cp: Running, mesh: Sidecars) -> Sidecar:
    await cp.apply(MTLS)
    found = await mesh.start("backend", protocol="tcp")
    found.greeting = GREETING
    return found


@pytest.fixture
async def door(cp: Running, backend: Sidecar, tmp_path: Path) -> AsyncIterator[Door]:
    other = LocalAuthority("other", await builtin.create_root("default", Conf(), SystemClock()))
    found = Door(cp, backend, tmp_path, other)
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
