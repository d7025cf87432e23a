"""Connections end with what allowed them, whatever they carry, and those of nobody else do."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from kuma.base import aio
from kuma.base.tls.trust import NOBODY
from kuma.resources import kinds
from soak import kept
from soak.kept import Kept
from tests.fakes.control_plane import MTLS, Running
from tests.integration.changes import change, transition
from tests.integration.clients import own_authority, with_leaf_of
from tests.integration.sidecars import Sidecar, Sidecars, until
from tests.xds.stream.test_revocation import revocation

SERVICES = {"tcp": "store", "http/1.1": "page", "http/2": "api", "grpc": "api", "websocket": "page", "chunked": "page"}
LASTING = ("tcp", "grpc", "websocket", "chunked")
"""Where one stream goes on for ever."""


def permission(*sources: str) -> str:
    admitted = ", ".join(f"{{match: {{kuma.io/service: '{source}'}}}}" for source in sources)
    return (
        f"{{type: TrafficPermission, mesh: default, name: callers, sources: [{admitted}], "
        "destinations: [{match: {kuma.io/service: '*'}}]}"
    )


@pytest.fixture
def declared() -> tuple[str, ...]:
    return MTLS, permission("*")


@pytest.fixture
async def callees(mesh: Sidecars) -> AsyncIterator[dict[str, Sidecar]]:
    """The workloads of all six protocols, with their proxies."""
    async with contextlib.AsyncExitStack() as stack:

        async def streams(serve: Any, port: int) -> None:
            stack.callback((await asyncio.start_server(serve, "127.0.0.1", port)).close)

        async def grpc(port: int) -> None:
            server = await kept.serve_grpc(port)
            stack.push_async_callback(server.stop, 0)

        store = await mesh.start("store", protocol="tcp", workload=lambda port: streams(kept.serve_tcp, port))
        page = await mesh.start("page", protocol="http", workload=lambda port: streams(kept.serve_http, port))
        api = await mesh.start("api", protocol="grpc", workload=grpc)
        yield {"store": store, "page": page, "api": api}


@contextlib.asynccontextmanager
async def keeping(*found: Kept) -> AsyncIterator[None]:
    """Use connections for as long as the block lasts, from when each has been used once."""
    tasks = [aio.spawn(one.run(), name=one.protocol) for one in found]

    async def all_used() -> bool:
        return all(one.used for one in found)

    try:
        await until(f"used: {[one.protocol for one in found]}", all_used)
        yield
    finally:
        await aio.stop(tasks)


def of(sidecar: Sidecar) -> dict[str, Kept]:
    return {protocol: Kept(protocol, sidecar.outbounds[service]) for protocol, service in SERVICES.items()}


async def test_whom_no_permission_admits_any_more_loses_what_is_open_and_nobody_else_does(
    cp: Running, mesh: Sidecars, callees: dict[str, Sidecar]
) -> None:
    web, shop = [await mesh.start(name, calls=tuple(callees)) for name in ("web", "shop")]
    of_web, of_shop = of(web), of(shop)
    async with keeping(*of_web.values(), *of_shop.values()):
        await cp.apply(permission("shop"))

        async def ended() -> bool:
            return all(one.ended or one.refused for one in of_web.values())

        await until("what web had open has ended", ended)
        used = {protocol: one.used for protocol, one in of_shop.items()}

        async def all_used_again() -> bool:
            return all(one.used > used[protocol] + 5 for protocol, one in of_shop.items())

        await until("shop goes on", all_used_again)
        await cp.apply(permission("shop", "other", "*"))
        used = {protocol: one.used for protocol, one in of_web.items()}

        async def web_is_back() -> bool:
            return all(one.used > used[protocol] for protocol, one in of_web.items())

        await until("web is admitted again", web_is_back)
    assert {protocol: (one.ended, one.refused, one.failures) for protocol, one in of_shop.items()} == {
        protocol: (0, 0, []) for protocol in SERVICES
    }
    assert [one.failures for one in of_web.values()] == [[]] * 6


async def connections(caller: Sidecar, service: str, counted: str) -> int:
    """The connections to a service that a caller's proxy has opened (`total`), or that have ended (`destroy`)."""
    name = f"cluster.{service}.upstream_cx_{counted}"
    async with httpx.AsyncClient(verify=NOBODY, trust_env=False) as admin:
        found = await admin.get(f"http://127.0.0.1:{caller.admin}/stats?filter=^{name}$")
    return int(found.text.rpartition(": ")[2])


async def test_what_was_opened_under_a_retired_authority_ends(
    cp: Running, mesh: Sidecars, callees: dict[str, Sidecar], tmp_path: Path
) -> None:
    web = await mesh.start("web", calls=tuple(callees))
    tls = await with_leaf_of(own_authority(cp), tmp_path)
    direct = {p: Kept(p, callees[SERVICES[p]].port, tls) for p in ("tcp", "http/1.1", "websocket", "chunked")}
    of_web = of(web)
    async with keeping(*of_web.values(), *direct.values()):
        opened = await connections(web, "api", "total")
        assert opened
        await change(cp, MTLS.replace("ca-1", "ca-2"))
        assert (await transition(cp)).open_until is not None, "what may be open yet is told"

        async def ended() -> bool:
            return all(one.ended for one in (*direct.values(), *(of_web[protocol] for protocol in LASTING)))

        await until("all of it has ended", ended)

        async def ended_over_http_2() -> bool:
            return await connections(web, "api", "destroy") >= opened

        await until("so have those over HTTP/2, which its proxy holds", ended_over_http_2)
        used = {protocol: one.used for protocol, one in of_web.items()}

        async def all_used_again() -> bool:
            return all(one.used > used[protocol] for protocol, one in of_web.items())

        await until("what was opened after it goes on", all_used_again)

        async def nothing_open() -> bool:
            return (await transition(cp)).open_until is None

        await until("nothing is open any more", nothing_open)
    assert [of_web[protocol].failures for protocol in ("http/1.1", "http/2")] == [[], []]
    assert {protocol: of_web[protocol].ended for protocol in LASTING} == dict.fromkeys(LASTING, 1)


async def test_what_is_open_ends_when_the_dataplane_of_the_caller_is_deleted(
    cp: Running, mesh: Sidecars, callees: dict[str, Sidecar]
) -> None:
    web = await mesh.start("web", calls=tuple(callees))
    of_web = of(web)
    async with keeping(*of_web.values()):
        await cp.parts.manager.delete(kinds.DATAPLANE.key("web-01", "default"))

        async def ended() -> bool:
            return all(one.ended for one in of_web.values())

        await until("all of it has ended", ended)


class TestStrict:
    @pytest.fixture
    def declared(self) -> tuple[str, ...]:
        return MTLS.replace("type: builtin", "type: builtin, mode: PERMISSIVE"), permission("*")

    async def test_what_is_open_in_the_clear_ends_when_mutual_tls_becomes_strict_and_nothing_else_does(
        self, cp: Running, mesh: Sidecars, callees: dict[str, Sidecar]
    ) -> None:
        web = await mesh.start("web", calls=tuple(callees))
        of_web = of(web)
        clear = {protocol: Kept(protocol, callees[service].port) for protocol, service in SERVICES.items()}
        async with keeping(*of_web.values(), *clear.values()):
            opened = await connections(web, "api", "destroy")
            await change(cp, MTLS)

            async def ended() -> bool:
                return all(one.ended for one in clear.values())

            await until("what was open in the clear has ended", ended)
            used = {protocol: one.used for protocol, one in of_web.items()}

            async def all_used_again() -> bool:
                return all(one.used > used[protocol] + 5 for protocol, one in of_web.items())

            await until("mutual TLS goes on", all_used_again)
            assert await connections(web, "api", "destroy") == opened
        assert {protocol: (one.ended, one.failures) for protocol, one in of_web.items()} == {
            protocol: (0, []) for protocol in SERVICES
        }


class TestExpiry:
    """Leaves live for 12 seconds, and what they have opened lingers for another 9 at most."""

    @pytest.fixture
    def declared(self) -> tuple[str, ...]:
        short = MTLS.replace("type: builtin", "type: builtin, dpCert: {rotation: {expiration: 12s}}")
        return short, permission("*")

    @pytest.fixture
    def xds_server(self) -> dict[str, Any]:
        return {"connection_linger": "9s"}

    async def test_what_was_opened_with_a_leaf_that_has_expired_ends(
        self, cp: Running, mesh: Sidecars, callees: dict[str, Sidecar], tmp_path: Path
    ) -> None:
        """So does all of one whose token has been revoked, which gets no other leaf: that is the bound of a revocation.

        Whoever gets another leaf has no request fail.
        """
        web, shop = [await mesh.start(name, calls=tuple(callees)) for name in ("web", "shop")]
        of_web, of_shop = of(web), of(shop)
        async with keeping(*of_web.values(), *of_shop.values()):
            await cp.apply_resource(revocation((tmp_path / "shop-token").read_text()))

            async def ended() -> bool:
                return all(of_web[protocol].ended for protocol in LASTING)

            await until("all of it has ended", ended)
            await until("so has all of shop's, and no more begins", lambda: lost(*of_shop.values()))
            used = {protocol: one.used for protocol, one in of_web.items()}

            async def all_used_again() -> bool:
                return all(one.used > used[protocol] for protocol, one in of_web.items())

            await until("web goes on", all_used_again)
        assert [of_web[protocol].failures for protocol in ("http/1.1", "http/2")] == [[], []]


async def lost(*found: Kept) -> bool:
    """Whether nothing comes of any of them for a second: what is not closed is used all the time."""
    before = [(one.used, one.ended, len(one.failures)) for one in found]
    await asyncio.sleep(1)
    return all(
        len(one.failures) > failures if one.protocol == "http/1.1" else one.used == used and one.ended > ended
        for one, (used, ended, failures) in zip(found, before, strict=True)
    )
