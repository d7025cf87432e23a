"""Who calls whom, as real Envoys report it."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import httpx
import pytest

from demo.processes import BIN
from kuma.base import aio
from kuma.resources import codec
from tests.fakes.control_plane import ALLOW_ALL, MTLS, Running, resource
from tests.fakes.patience import PATIENCE
from tests.integration.sidecars import Sidecars, exchange, http_status, until

PERMISSIVE = MTLS.replace("type: builtin", "type: builtin, mode: PERMISSIVE")
WEB_ONLY = ALLOW_ALL.replace("'*'", "web", 1)
Seen = set[tuple[str, str, str, str]]


@pytest.fixture
def declared() -> tuple[str, ...]:
    return PERMISSIVE, WEB_ONLY


async def seen(cp: Running) -> Seen:
    async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE) as client:
        answer = await client.get(f"http://localhost:{await cp.api_port()}/meshes/default/observed-traffic")
        items: list[dict[str, Any]] = answer.json()["items"]
        return {(item["service"], item["caller"], item["how"], item["outcome"]) for item in items}


async def shown(cp: Running, expected: Seen) -> None:
    """Return once exactly this is shown."""

    async def all_of_it() -> bool:
        return await seen(cp) == expected

    await until(f"shown: {expected}", all_of_it)


async def foreseen(cp: Running, change: str) -> dict[str, Any]:
    """What a preview says of a change of the mesh."""
    resources = [codec.to_universal(resource(change))]
    async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE) as client:
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
    reader, writer = await asyncio.open_connection("127.0.0.1", backend.port)
    for count in (1, 2, 3):  # no more than these, one of which hides nothing by what it says
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\nx-kuma-known-caller: yes\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\nbackend")).startswith(b"HTTP/1.1 200"), count

    assert all("x-kuma-known-caller" not in came for came in backend.headers)

    async def is_known_as_long_as_it_is_connected() -> bool:
        return ("backend", "127.0.0.1", "plaintext", "allowed") in await seen(cp)

    await until("a caller that keeps its connection is seen", is_known_as_long_as_it_is_connected)
    said = await foreseen(cp, MTLS)
    assert said["strict"]["answer"] == "no"
    assert ("127.0.0.1", "plaintext", "refused") in [(c["caller"], c["how"], c["effect"]) for c in said["callers"]]
    writer.close()
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
