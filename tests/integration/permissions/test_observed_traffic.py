"""Who calls whom, as real Envoys report it."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import Counter
from collections.abc import Mapping
from typing import Any

import httpx
import pytest

from demo.processes import BIN
from kuma.base import aio
from kuma.base.tls.trust import NOBODY
from kuma.resources import codec
from soak import kept
from soak.kept import Kept
from tests.fakes.control_plane import ALLOW_ALL, MTLS, Running, resource
from tests.fakes.patience import PATIENCE
from tests.integration.sidecars import Sidecar, Sidecars, exchange, http_status, until

PERMISSIVE = MTLS.replace("type: builtin", "type: builtin, mode: PERMISSIVE")
WEB_ONLY = ALLOW_ALL.replace("'*'", "web", 1)
Seen = set[tuple[str, str, str, str]]


@pytest.fixture
def declared() -> tuple[str, ...]:
    return PERMISSIVE, WEB_ONLY


async def told(cp: Running) -> list[dict[str, Any]]:
    """What is shown of the traffic of the mesh."""
    async with httpx.AsyncClient(verify=NOBODY, trust_env=False, timeout=PATIENCE) as client:
        answer = await client.get(f"http://localhost:{await cp.api_port()}/meshes/default/observed-traffic")
        items: list[dict[str, Any]] = answer.json()["items"]
        return items


async def seen(cp: Running) -> Seen:
    return {(item["service"], item["caller"], item["how"], item["outcome"]) for item in await told(cp)}


async def shown(cp: Running, expected: Seen) -> None:
    """Return once exactly this is shown."""

    async def all_of_it() -> bool:
        return await seen(cp) == expected

    await until(f"shown: {expected}", all_of_it)


async def foreseen(cp: Running, change: str) -> dict[str, Any]:
    """What a preview says of a change of the mesh."""
    resources = [codec.to_universal(resource(change))]
    async with httpx.AsyncClient(verify=NOBODY, trust_env=False, timeout=PATIENCE) as client:
        answer = await client.post(f"http://localhost:{await cp.api_port()}/preview", json={"resources": resources})
        (said,) = answer.json()["items"]
        return dict(said)


async def kumactl(cp: Running, *arguments: str) -> str:
    port = await cp.api_port()
    (cp.directory / "ctl").write_text(
        f"{{controlPlanes: [{{name: l, coordinates: {{apiServer: {{url: 'http://localhost:{port}'}}}}}}], "
        "contexts: [{name: l, controlPlane: l}], currentContext: l}"
    )
    process = await asyncio.create_subprocess_exec(
        BIN / "kumactl", f"--config-file={cp.directory / 'ctl'}", *arguments, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    return output.decode()


async def test_every_kind_of_caller_is_seen_and_the_plaintext_ones_are_told_with_the_mesh(
    cp: Running, mesh: Sidecars
) -> None:
    web, backend = await mesh.pair()
    busy = Kept("http/1.1", backend.port)

    async def is_known_as_long_as_it_is_connected() -> bool:
        for _ in range(100):
            await busy.use()
        return ("backend", "127.0.0.1", "plaintext", "allowed") in await seen(cp)

    await until("a caller that keeps its connection is seen", is_known_as_long_as_it_is_connected)
    assert (busy.opened, busy.ended, busy.failures) == (1, 0, [])
    said = await foreseen(cp, MTLS)
    assert said["strict"]["answer"] == "no"
    assert ("127.0.0.1", "plaintext", "refused") in [(c["caller"], c["how"], c["effect"]) for c in said["callers"]]
    await busy.close()
    other = await mesh.start("other", calls=("backend",))

    async def is_told_while_it_lasts() -> bool:
        assert await other.call("backend") == 403
        return ("backend", "other", "meshTls", "refused") in await seen(cp)

    await until("Envoy tells whom it refuses, whose connection has not ended", is_told_while_it_lasts)
    assert await http_status(backend.port) == 200
    unverified = ssl.create_default_context()
    unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
    own_tls = aio.spawn(exchange(backend.port, b"x", unverified), name="a caller's own TLS")  # that nobody answers
    for caller in (web, other):  # connections over HTTP are told of when they end
        caller.running.terminate()
        await caller.running.wait()
    await shown(
        cp,
        {
            ("backend", "web", "meshTls", "allowed"),
            ("backend", "other", "meshTls", "refused"),
            ("backend", "127.0.0.1", "plaintext", "allowed"),
            ("backend", "127.0.0.1", "foreignTls", "allowed"),
        },
    )
    assert "1 in the last hour" in await kumactl(cp, "inspect", "meshes")
    table = await kumactl(cp, "inspect", "traffic", "--plaintext")
    assert [line.split()[:5] for line in table.splitlines()[1:]] == [
        ["backend", "backend-01", str(backend.port), "127.0.0.1", "plaintext"]
    ]
    counted = await kumactl(cp, "inspect", "dataplane", "backend-01", "--type=stats")
    dropped = [line.rpartition(": ") for line in counted.splitlines() if "logs_dropped" in line]
    assert dropped, "what Envoy could not report is counted by it"
    assert {count for _, _, count in dropped} == {"0"}
    await aio.stop([own_tls])


async def test_a_connection_over_tcp_is_seen_while_it_is_open_and_strict_cuts_it_off_as_it_was_said(
    cp: Running, mesh: Sidecars
) -> None:
    backend = await mesh.start("backend", protocol="tcp")
    _, writer = await asyncio.open_connection("127.0.0.1", backend.port)
    writer.write(b"for a long time")
    await shown(cp, {("backend", "127.0.0.1", "plaintext", "allowed")})
    writer.close()

    said = await foreseen(cp, MTLS)
    assert [(c["caller"], c["how"], c["effect"]) for c in said["callers"]] == [("127.0.0.1", "plaintext", "refused")]
    assert said["strict"]["answer"] == "no"
    assert await exchange(backend.port, b"x") == b"backend:x"
    await cp.apply(MTLS)
    await mesh.converged()

    async def is_cut_off() -> bool:
        return b"backend" not in await exchange(backend.port, b"in the clear")  # a TLS alert

    await until("plaintext is cut off", is_cut_off)


async def connections(called: Sidecar) -> int:
    """How many connections in plaintext to a workload have ended."""
    async with httpx.AsyncClient(verify=NOBODY, trust_env=False) as admin:
        stats = f"http://127.0.0.1:{called.admin}/stats?filter=_plaintext.downstream_cx_destroy$"
        return int((await admin.get(stats)).text.rpartition(": ")[2])


async def have_been_told(cp: Running, ended: Mapping[str, int]) -> bool:
    """Whether as many connections to each service are shown."""
    found = Counter[str]()
    for item in await told(cp):
        found[item["service"]] += item["connections"]
    return all(found[name] >= number for name, number in ended.items())


class TestConnectionsThatEndInTime:
    """By leaves of so short a life, requests are taken on a connection for 0.3 s rather than ten minutes."""

    @pytest.fixture
    def declared(self) -> tuple[str, ...]:
        return PERMISSIVE.replace("type: builtin", "type: builtin, dpCert: {rotation: {expiration: 12s}}"), WEB_ONLY

    @pytest.fixture
    def xds_server(self) -> dict[str, Any]:
        return {"connection_linger": "100ms"}

    async def test_plaintext_callers_lose_no_request_and_each_of_their_connections_is_reported(
        self, cp: Running, mesh: Sidecars
    ) -> None:
        async with contextlib.AsyncExitStack() as stack:

            async def grpc(port: int) -> None:
                stack.push_async_callback((await kept.serve_grpc(port)).stop, 0)

            page, api = await mesh.start("page"), await mesh.start("api", protocol="grpc", workload=grpc)
            callers, rare = (Kept("http/1.1", page.port), Kept("http/2", api.port)), Kept("http/1.1", page.port)
            await rare.use()

            async def have_changed() -> bool:
                for one in callers:
                    for _ in range(50):
                        await one.use()
                return min([await connections(called) for called in (page, api)]) >= 3

            await until("connections are others by now", have_changed)
            for one in callers:
                while one.used < 500:
                    await one.use()
            assert [one.failures for one in callers] == [[], []]
            for one in callers:
                await one.close()

            ended = {called.name: await connections(called) for called in (page, api)}
            assert min(ended.values()) >= 3

            await until("every connection that has ended is told", lambda: have_been_told(cp, ended))
            await rare.use()
            outcome = (rare.used, rare.opened, rare.ended, rare.failures)
            assert outcome == (2, 1, 1, []), "Envoy waits with its goodbye for the next answer, however long that is"
