"""The readiness of a proxy on a port of its own."""

from __future__ import annotations

import asyncio
import socket

import pytest

from kuma.agent import readiness
from kuma.base import aio
from kuma.base.errors import Misconfigured


async def get(port: int, request: str) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"{request} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
    found = (await reader.read()).decode()
    writer.close()
    return found


async def test_it_is_told_at_one_path() -> None:
    listener = readiness.listen(_free_port())
    assert listener is not None
    port, told = listener.getsockname()[1], readiness.Readiness(listener)
    task = aio.spawn(told.run(), name="readiness")
    now = readiness.READY

    async def state() -> str:
        return now

    assert (await get(port, "GET /ready")).startswith("HTTP/1.1 503 ")  # there is no proxy yet
    told.state = state
    answer = await get(port, "GET /ready")
    assert answer.startswith("HTTP/1.1 200 OK\r\n")
    assert answer.endswith("\r\n\r\nREADY\n")
    assert (await get(port, "GET /ready?verbose")).startswith("HTTP/1.1 200 ")
    now = readiness.TERMINATING
    assert (await get(port, "GET /ready")).endswith("TERMINATING\n")
    assert (await get(port, "HEAD /ready")).endswith("\r\n\r\n")
    for other in ("GET /", "GET /config_dump", "POST /ready"):
        assert (await get(port, other)).startswith("HTTP/1.1 404 ")
    assert (await get(port, "nonsense")).startswith("HTTP/1.1 400 ")
    await aio.stop([task])


def test_a_port_that_is_taken_matters_only_if_it_was_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert readiness.listen(0) is None
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(Misconfigured, match=f"--readiness-port 127.0.0.1:{port}: .*; choose another port, or 0"):
            readiness.listen(port)
    usual = readiness.listen(None)  # if it is not this process that has it now, another one has
    assert readiness.listen(None) is None
    assert "readiness is not told" in capsys.readouterr().out
    if usual is not None:
        usual.close()


async def test_connections_that_ask_nothing_keep_nobody_out() -> None:
    listener = readiness.listen(_free_port())
    assert listener is not None
    port = listener.getsockname()[1]
    task = aio.spawn(readiness.Readiness(listener).run(), name="readiness")
    idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(64)]
    try:
        assert (await get(port, "GET /live")).startswith("HTTP/1.1 200")
    finally:
        for _, writer in idle:
            writer.close()
        await aio.stop([task])


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])
