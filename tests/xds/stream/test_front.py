"""Before the gRPC server: nobody unknown holds much, sends much, or waits long, and nobody else notices."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from kuma.base import aio
from kuma.base.system import sockets
from kuma.base.values import addresses
from kuma.xds.stream.connection import SLICE
from kuma.xds.stream.front import Front, FrontLimits
from tests.fakes.control_plane import MTLS, dataplane, running
from tests.fakes.patience import PATIENCE

HELLO = b"\x16\x03\x01\x00\x05hello"
_LONGEST_QUEUE = 28
"""Where the kernel tells of a listener how many connections may wait: `tcpi_sacked` (linux/tcp.h, tcp_diag.c)."""
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
SOME, OTHERS, FEW = "127.0.0.2", "127.0.0.3", "127.0.0.4"


class Passed:
    """What stands behind the front here: sends back what comes, and knows by which name gRPC would call the peer."""

    def __init__(self) -> None:
        self.names: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.names.append(f"unix-abstract:{writer.get_extra_info('peername')[1:].decode()}")
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def front(limits: FrontLimits, serve: Serve | None = None) -> AsyncIterator[tuple[Front, Passed, int]]:
    found, passed = Front(limits), Passed()
    listener = sockets.bound("127.0.0.1", 0)
    listener.setblocking(False)
    listener.listen()
    path = found.open().removeprefix("unix:").replace("unix-abstract:", "\0")
    server = await asyncio.start_unix_server(serve or passed.serve, path)
    found.listening()
    serving = aio.spawn(found.serve(listener), name="front")
    try:
        yield found, passed, listener.getsockname()[1]
    finally:
        await aio.stop([serving])
        found.close()
        server.close()


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def says(self, data: bytes = HELLO) -> bytes:
        """What comes back."""
        self.writer.write(data)
        async with asyncio.timeout(PATIENCE):
            return await self.reader.readexactly(len(data))

    async def ends(self) -> None:
        """Return once the other side has closed."""
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(PATIENCE):
                await self.reader.read()
        self.writer.close()


async def connect(port: int, address: str = SOME) -> Client:
    return Client(*await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0)))


async def test_what_comes_is_passed_on_and_the_peer_is_known_by_its_address() -> None:
    async with front(FrontLimits()) as (found, passed, port):
        client = await connect(port)
        client.writer.write(HELLO[:3])
        client.writer.write(HELLO[3:])
        assert await client.reader.readexactly(len(HELLO)) == HELLO
        assert await client.says(b"x" * 500_000)
        (name,) = passed.names
        assert found.peer(name) == f"ipv4:{SOME}:{client.writer.get_extra_info('sockname')[1]}"
        assert found.peer("ipv4:10.0.0.1:5") == "ipv4:10.0.0.1:5"
        client.writer.close()


async def test_whatever_clears_temporary_files_cuts_off_nobody_and_nothing_is_left_by_who_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    async with front(FrontLimits()) as (_, _, port):
        assert not list(tmp_path.iterdir())
        client = await connect(port)
        assert await client.says() == HELLO
        client.writer.close()


async def test_a_whole_mesh_may_wait_to_be_accepted() -> None:
    with sockets.bound("127.0.0.1", 0) as listener:
        listener.setblocking(False)
        found = Front(FrontLimits())
        serving = aio.spawn(found.serve(listener), name="front")
        while not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            await asyncio.sleep(0)
        info = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)
        (most,) = struct.unpack_from("=I", info, _LONGEST_QUEUE)
        assert most >= min(1000, int(Path("/proc/sys/net/core/somaxconn").read_text()))
        await aio.stop([serving])


async def test_without_a_place_for_a_directory_it_is_passed_on_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    async with front(FrontLimits()) as (_, _, port):
        client = await connect(port)
        assert await client.says() == HELLO
        client.writer.close()


async def test_what_is_no_tls_is_not_passed_on() -> None:
    async with front(FrontLimits()) as (_, passed, port):
        client = await connect(port)
        client.writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        await client.ends()
        assert not passed.names


@pytest.mark.parametrize("first", [b"", HELLO[:7], HELLO], ids=["nothing", "half a record", "a handshake"])
async def test_one_address_holds_so_many_and_others_are_served(first: bytes) -> None:
    async with front(FrontLimits(of_address=3, unknown=100)) as (_, _, port):
        held = [await connect(port) for _ in range(3)]
        for client in held:
            client.writer.write(first)
        await (await connect(port)).ends()
        other = await connect(port, OTHERS)
        assert await other.says() == HELLO
        for client in (*held, other):
            client.writer.close()


async def test_when_all_are_taken_whoever_holds_the_most_gives_one_back() -> None:
    async with front(FrontLimits(of_address=5, unknown=7)) as (_, _, port):
        held = [await connect(port) for _ in range(5)]
        assert [await client.says() for client in held] == [HELLO] * 5
        others = [await connect(port, OTHERS) for _ in range(2)]
        assert [await client.says() for client in others] == [HELLO] * 2
        few = await connect(port, FEW)
        assert await few.says() == HELLO
        await held[0].ends()
        assert [await client.says() for client in (*held[1:], *others, few)] == [HELLO] * 7
        for client in (*held, *others, few):
            client.writer.close()


async def test_nobody_unknown_sends_much_and_who_is_known_may() -> None:
    async with front(FrontLimits(size=100_000)) as (found, passed, port):
        client, known = await connect(port), await connect(port, OTHERS)
        assert await known.says() == HELLO
        with found.stream(passed.names[0]) as stream:
            stream.known()
            for _ in range(4):
                assert await known.says(b"x" * 90_000)
            assert await client.says() == HELLO
            client.writer.write(b"x" * 100_000)
            await client.ends()
        assert await known.says(b"x" * 90_000), "as much as a new one"
        known.writer.write(b"x" * 90_000)
        await known.ends()


async def test_all_of_one_address_together_send_no_more_than_so_much() -> None:
    async with front(FrontLimits(of_address=10, size=100_000, sizes=150_000)) as (_, _, port):
        first, second = await connect(port), await connect(port)
        assert await first.says(HELLO + b"x" * 80_000)
        second.writer.write(HELLO + b"x" * 80_000)
        await second.ends()
        assert await first.says(HELLO) == HELLO
        first.writer.close()


async def test_who_opens_no_stream_is_cut_off_and_who_has_one_is_not() -> None:
    async with front(FrontLimits(seconds=0.3)) as (found, passed, port):
        known = await connect(port)
        assert await known.says() == HELLO
        with found.stream(passed.names[0]):
            for first in (b"", HELLO[:7], HELLO):
                silent = await connect(port, OTHERS)
                silent.writer.write(first)
                await silent.ends()
            assert await known.says() == HELLO
        await known.ends()


def test_whose_an_address_is() -> None:
    assert addresses.holder("10.0.0.1") == addresses.holder("::ffff:10.0.0.1") == "10.0.0.1"
    assert (
        addresses.holder("2001:db8::1") == addresses.holder("2001:db8::ffff:1") != addresses.holder("2001:db8:0:1::1")
    )
    assert addresses.holder("::1") == "::1"


def frame(kind: int, content: bytes) -> bytes:
    """An HTTP/2 frame of stream 1 without flags: neither the headers nor the stream end (RFC 9113 §4.1)."""
    return len(content).to_bytes(3) + bytes([kind, 0]) + (1 if kind != 4 else 0).to_bytes(4) + content


async def test_headers_that_never_end_are_cut_off_before_they_take_up_memory(tmp_path: Path) -> None:
    headers, continuation, settings = 1, 9, 4
    async with running(tmp_path) as cp:
        await cp.apply(MTLS)
        web = await cp.proxy(dataplane("web-01", "web"))
        await web.until(lambda: web.certificate)
        context = ssl.create_default_context(cadata=cp.ca_pem.decode())
        context.set_alpn_protocols(["h2"])
        port = await cp.parts.xds.port()
        _, writer = await asyncio.open_connection("localhost", port, ssl=context)
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(settings, b"") + frame(headers, b"\x00\x01a\x01b"))
        sent, one = 0, frame(continuation, b"\x00\x04name\x82" + b"v" * 16_000)
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(PATIENCE):
                while True:
                    writer.write(one)
                    await writer.drain()
                    sent += len(one)
                    await asyncio.sleep(0)
        writer.close()
        assert sent < 16 << 20, "what is on its way, and what is taken"
        assert web.connected


async def test_while_it_is_shut_nobody_is_served_and_afterwards_all_are() -> None:
    async with front(FrontLimits()) as (found, _, port):
        before = await connect(port)
        assert await before.says() == HELLO
        found.shut(True)
        await before.ends()
        await (await connect(port)).ends()
        found.shut(False)
        after = await connect(port)
        assert await after.says() == HELLO
        after.writer.close()


async def test_much_at_once_is_passed_on_slice_by_slice() -> None:
    """What has come before gRPC has its say costs it seconds: megabytes of pings, after each of which it would end."""
    much = HELLO + bytes(range(256)) * 4096
    async with front(FrontLimits()) as (_, _, port):
        client = await connect(port)
        assert await client.says(much) == much
        client.writer.close()

    taken: list[int] = []

    async def ends_at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        taken.append(len(await reader.read(len(much))))
        writer.close()

    async with front(FrontLimits(), ends_at_once) as (_, _, port):
        client = await connect(port)
        client.writer.write(much)
        await client.ends()
        assert taken[0] <= 2 * SLICE


async def test_fronts_that_share_a_socket_take_turns_and_one_that_is_shut_takes_nothing() -> None:
    """As two workers have it: what waits is the other's, also while one is shut, and the queue stays as long."""
    with sockets.listening("127.0.0.1", 0, "X") as listener:
        async with contextlib.AsyncExitStack() as stack:
            first, second = [await stack.enter_async_context(_sharing(listener)) for _ in range(2)]
            port = listener.getsockname()[1]
            waiting = [socket.create_connection(("127.0.0.1", port)) for _ in range(9)]  # nobody has looked yet
            for each in waiting:
                each.setblocking(False)
                reader, writer = await asyncio.open_connection(sock=each)
                assert await Client(reader, writer).says() == HELLO
                writer.close()
            assert len(first[1].names) >= 2
            assert len(second[1].names) >= 2
            first[0].shut(True)
            before = len(first[1].names)
            for _ in range(20):
                client = await connect(port)
                assert await client.says() == HELLO
                client.writer.close()
            assert len(first[1].names) == before
            first[0].shut(False)
            second[0].shut(True)
            client = await connect(port)
            assert await client.says() == HELLO
            client.writer.close()
            info = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)
            assert struct.unpack_from("=I", info, _LONGEST_QUEUE)[0] >= min(
                1000, int(Path("/proc/sys/net/core/somaxconn").read_text())
            )


@contextlib.asynccontextmanager
async def _sharing(listener: socket.socket) -> AsyncIterator[tuple[Front, Passed]]:
    """One of several fronts that accept from a socket."""
    found, passed = Front(FrontLimits()), Passed()
    path = found.open().removeprefix("unix:").replace("unix-abstract:", "\0")
    server = await asyncio.start_unix_server(passed.serve, path)
    found.listening()
    own = listener.dup()  # each process has a descriptor of its own
    serving = aio.spawn(found.serve(own, is_shared=True), name="front")
    try:
        yield found, passed
    finally:
        await aio.stop([serving])
        own.close()
        found.close()
        server.close()
