"""Connections: who holds them open, sends half a head or half a handshake, or too much, holds up nobody else."""

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry

from kuma.api.http.connections import ConnectionLimits, Open
from kuma.api.http.server import HttpServer
from kuma.api.routes import diagnostics
from kuma.app.serving import server_certificate
from kuma.base import aio
from kuma.base.tls.server_identity import ServerIdentity
from kuma.base.tls.trust import NOBODY
from tests.fakes.largest import counted
from tests.fakes.patience import PATIENCE

ABUSER = ("127.0.0.2", 0)
HALF_A_HEAD = b"GET /healthy HTTP/1.1\r\nhost: localhost\r\nx: "
LENGTH, CHUNKED = b"content-length: 5", b"transfer-encoding: chunked"
QUICK = ConnectionLimits(per_address=5, total=8, handshake=0.5, head=0.5, idle=0.5, send=0.5)
Connected = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@contextlib.asynccontextmanager
async def serving_at(limits: ConnectionLimits, app: Any = None, tls: Any = None) -> AsyncIterator[int]:
    app = app or diagnostics.create_app(CollectorRegistry(), str)
    server = HttpServer(app, "127.0.0.1", 0, setting="X", limits=limits, tls=tls)
    task = aio.spawn(server.run(), name="server")
    try:
        yield await server.port()
    finally:
        await aio.stop([task])


async def connect(port: int, first: bytes = b"", local: tuple[str, int] = ABUSER) -> Connected:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=local)
    writer.write(first)
    return reader, writer


async def answer(connected: Connected) -> tuple[int, dict[str, Any]]:
    """Status and JSON of the answer, after which the connection is closed."""
    reader, writer = connected
    async with asyncio.timeout(PATIENCE):
        head, _, content = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    return int(head.split()[1]), json.loads(content)


async def closed(connected: Connected) -> None:
    """Return once the other side has closed."""
    try:
        async with asyncio.timeout(PATIENCE):
            await connected[0].read()
    except ConnectionError:
        pass
    finally:
        connected[1].close()


@pytest.mark.parametrize("first", [b"", HALF_A_HEAD], ids=["idle", "half a head"])
async def test_who_holds_connections_open_is_refused_more_and_others_are_served(first: bytes) -> None:
    async with serving_at(QUICK) as port:
        held = [await connect(port, first) for _ in range(5)]
        status, body = await answer(await connect(port))
        assert (status, body["status"], body["title"]) == (429, 429, "Too Many Requests")
        async with httpx.AsyncClient(verify=NOBODY, timeout=PATIENCE) as client:
            assert (await client.get(f"http://127.0.0.1:{port}/healthy")).status_code == 200
        for connected in held:
            await closed(connected)
        again = await connect(port, HALF_A_HEAD + b"y\r\n\r\n")
        assert (await again[0].readline()).split()[1] == b"200"
        await closed(again)


async def test_as_many_connections_as_there_may_be() -> None:
    async with serving_at(QUICK) as port:
        held = [await connect(port, local=(f"127.0.0.{i % 4 + 2}", 0)) for i in range(8)]
        status, body = await answer(await connect(port, local=("127.0.0.9", 0)))
        assert (status, body["title"]) == (503, "Service unavailable")
        for connected in held:
            await closed(connected)


async def test_a_head_that_trickles_in_is_cut_off_all_the_same() -> None:
    async with serving_at(QUICK) as port:
        reader, writer = await connect(port, HALF_A_HEAD)
        cut_off = aio.spawn(reader.readline(), name="answer")
        async with asyncio.timeout(PATIENCE):
            while not cut_off.done():
                writer.write(b"y")
                await asyncio.sleep(0.05)
        head = cut_off.result()
        assert not head or head.split()[1] == b"408"
        writer.close()


async def test_half_a_handshake_counts_and_is_cut_off(tmp_path: Path) -> None:
    files = server_certificate.ensure(tmp_path, server_certificate.own_names("127.0.0.1"), datetime.now(UTC))
    async with serving_at(QUICK, tls=ServerIdentity.of(files.chain, files.key)) as port:
        held = [await connect(port, b"\x16\x03\x01\x02\x00") for _ in range(5)]
        one_more = await connect(port)
        await closed(one_more)
        trusting = ssl.create_default_context(cafile=files.ca)
        async with httpx.AsyncClient(verify=trusting, timeout=PATIENCE) as client:
            assert (await client.get(f"https://localhost:{port}/healthy")).status_code == 200
        for connected in held:
            await closed(connected)


async def test_a_connection_lives_on_between_requests_but_not_for_ever() -> None:
    async with serving_at(QUICK) as port:
        connected = await connect(port)
        for _ in range(3):
            connected[1].write(b"GET /healthy HTTP/1.1\r\nhost: localhost\r\n\r\n")
            head = (await connected[0].readuntil(b"\r\n\r\n")).decode().lower()
            assert head.split()[1] == "200"
            await connected[0].readexactly(int(head.partition("content-length: ")[2].split()[0]))
        await closed(connected)


async def test_who_does_not_read_is_disconnected() -> None:
    ended = asyncio.Event()

    async def endless(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        gone = aio.spawn(receive(), name="disconnect")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not gone.done():
            await send({"type": "http.response.body", "body": b"x" * 1_000_000, "more_body": True})
            await asyncio.sleep(0)
        ended.set()

    async with serving_at(QUICK, endless) as port:
        connected = await connect(port, HALF_A_HEAD + b"y\r\n\r\n")
        async with asyncio.timeout(PATIENCE):
            await ended.wait()
        connected[1].close()


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /healthy?" + b"x" * 9_000 + b" HTTP/1.1\r\nhost: localhost\r\n\r\n", 414),
        (b"GET /" + b"x" * 100_000, 414),
        (b"GET /healthy HTTP/1.1\r\nhost: localhost\r\nx: " + b"y" * 20_000 + b"\r\n\r\n", 431),
        (b"GET /healthy HTTP/1.1\r\nhost: localhost\r\n" + b"a: b\r\n" * 4_000 + b"\r\n", 431),
        (b"GET /healthy HTTP/1.1\r\nhost: localhost\r\nx: " + b"y" * 100_000, 431),
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400),
    ],
    ids=["url", "endless url", "header", "headers", "endless header", "no HTTP", "no host", "two hosts", "TLS"],
)
async def test_heads_that_are_too_long_or_none(request_: bytes, status: int) -> None:
    limits = ConnectionLimits(idle=0.5)
    async with serving_at(limits) as port:
        found, body = await answer(await connect(port, request_))
        assert (found, body["status"], body["type"]) == (status, status, "/std-errors")
        assert body["detail"] == body["details"]


async def whole_body(scope: Any, receive: Any, send: Any) -> None:
    """Reads all of a body, and then answers."""
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body"})


async def test_many_who_send_tiny_chunks_take_turns() -> None:
    """Of one connection a slice is little. All together are to keep nobody waiting either."""
    head = b"POST / HTTP/1.1\r\nhost: localhost\r\n" + CHUNKED + b"\r\n\r\n"
    sent = head + b"1\r\n \r\n" * 1800 + b"0\r\n\r\n"
    async with serving_at(ConnectionLimits(), whole_body) as port:
        async with counted() as one:
            await answered(await connect(port, sent))
        connected = [await connect(port) for _ in range(10)]
        async with counted() as all_of_them:
            for _, writer in connected:
                writer.write(sent)
            for connection in connected:
                await answered(connection)
    assert all_of_them.most < 3 * one.most


async def test_who_sends_many_requests_at_once_keeps_nobody_else_waiting() -> None:
    paths: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        paths.append(scope["path"])
        await whole_body(scope, receive, send)

    request = b"GET /%s HTTP/1.1\r\nhost: localhost\r\n\r\n"
    async with serving_at(ConnectionLimits(), app) as port:
        greedy = [await connect(port, request % b"greedy" * 100) for _ in range(20)]
        other = await connect(port)
        while len(paths) < 40:
            await asyncio.sleep(0)
        before = len(paths)
        other[1].write(request % b"other")
        await answered(other)
        for connected in greedy:
            await answered(connected, 100)
    assert paths.index("/other") - before < 15


async def answered(connected: Connected, answers: int = 1) -> None:
    """Return once so many answers without content have come."""
    reader, writer = connected
    async with asyncio.timeout(PATIENCE):
        for _ in range(answers):
            assert (await reader.readuntil(b"\r\n\r\n")).split()[1] == b"200"
    writer.close()


SMUGGLED = b"GET /ready HTTP/1.1\r\nhost: localhost\r\n\r\n"


@pytest.mark.parametrize("lengths", [(LENGTH, CHUNKED), (CHUNKED, LENGTH)], ids=["length first", "encoding first"])
async def test_a_body_of_two_lengths_is_refused_and_nothing_after_it_is_read(lengths: tuple[bytes, ...]) -> None:
    """What is one request to a proxy before us must not be two to us (RFC 9112 §6.1 and §11.2)."""
    async with serving_at(ConnectionLimits()) as port:
        head = b"\r\n".join((b"GET /healthy HTTP/1.1", b"host: localhost", *lengths, b"", b""))
        found, body = await answer(await connect(port, head + b"0\r\n\r\n" + SMUGGLED))
        assert (found, body["title"]) == (400, "Bad Request")
        assert "Transfer-Encoding and Content-Length" in body["detail"]


@pytest.mark.parametrize("turns", [0, 1, 2])
async def test_a_body_that_is_broken_while_its_request_is_answered_is_no_fault_of_ours(turns: int) -> None:
    """Anybody may send one, many times a second: it is not worth a traceback in the log."""
    answering = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        for message in (
            {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]},
            {"type": "http.response.body"},
        ):
            await send(message)
        answering.set()

    async with serving_at(ConnectionLimits(), app) as port:
        head = b"\r\n".join((b"GET /healthy HTTP/1.1", b"host: localhost", CHUNKED, b"", b""))
        connected = await connect(port, head + b"x\r\n")
        async with asyncio.timeout(PATIENCE):
            await answering.wait()  # it was no error to say something, though nobody may have heard it
        await closed(connected)


def test_a_few_addresses_do_not_take_all_connections_and_this_machine_always_has_some() -> None:
    limits = ConnectionLimits()
    opened = Open(limits)
    for number in range(8):
        while opened.admit(f"10.0.0.{number}") is None:
            pass
    for number in range(20):
        assert [opened.admit(f"10.0.1.{number}") for _ in range(8)] == [None] * 8, "others are served"
    for number in range(1000):
        while opened.admit(f"10.{number >> 8}.2.{number & 255}") is None:
            pass
    refused = opened.admit("10.9.9.9")
    assert refused is not None
    assert refused.status == 503
    assert [opened.admit("127.0.0.1") for _ in range(10)] == [None] * 10
    opened.release("10.0.0.0")
    assert opened.admit("10.9.9.9") is None


def test_all_addresses_of_one_ipv6_network_are_one() -> None:
    opened = Open(ConnectionLimits(per_address=10))
    assert [opened.admit(f"2001:db8::{number:x}") for number in range(10)] == [None] * 10
    refused = opened.admit("2001:db8::ffff:1")
    assert refused is not None
    assert refused.status == 429
    assert opened.admit("2001:db8:0:1::1") is None


@pytest.mark.parametrize("size", [1, 100_000], ids=["one byte", "at once"])
async def test_a_body_in_very_many_pieces_is_taken_in_as_few_and_as_it_is(size: int) -> None:
    """A chunk of one byte costs as much as one of a thousand: they are put together before anybody sees them."""
    pieces: list[bytes] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        more = True
        while more:
            message = await receive()
            pieces.append(message["body"])
            more = message["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})

    content = bytes(range(256)) * (4 if size == 1 else 400)
    async with serving_at(ConnectionLimits(), app) as port:
        head = f"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(content)}\r\n\r\n"
        reader, writer = await connect(port, head.encode())
        for start in range(0, len(content), size):
            writer.write(content[start : start + size])
            await asyncio.sleep(0)
        async with asyncio.timeout(PATIENCE):
            assert (await reader.readline()).split()[1] == b"200"
        writer.close()
    assert b"".join(pieces) == content
    assert len(pieces) < 200
