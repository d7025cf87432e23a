"""kuma-dp asks the workload what the kubelet would ask it, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc.aio
import httpx
import pytest
from google.protobuf import wrappers_pb2

from demo.processes import free_ports
from kuma.agent import probes
from kuma.base import aio
from kuma.base.errors import Misconfigured
from tests.fakes.patience import PATIENCE

ELSEWHERE = "127.0.0.41"
"""Where the kubelet asks; the workload is on 127.0.0.1."""


@asynccontextmanager
async def asked(targets: dict[str, Any]) -> AsyncIterator[httpx.AsyncClient]:
    (port,) = free_ports(1)
    found = probes.listen(json.dumps({"port": port, "targets": targets}), ELSEWHERE)
    assert found is not None
    task = aio.spawn(found.run(), name="probes")
    try:
        async with httpx.AsyncClient(
            base_url=f"http://{ELSEWHERE}:{port}", trust_env=False, timeout=PATIENCE
        ) as client:
            yield client
    finally:
        await aio.stop([task])


@asynccontextmanager
async def workload(status: int = 200) -> AsyncIterator[tuple[int, list[str]]]:
    """An HTTP workload: its port, and the requests that it has had."""
    heard: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            heard.append((await reader.readuntil(b"\r\n\r\n")).decode())
            writer.write(f"HTTP/1.1 {status} x\r\ncontent-length: 6\r\nconnection: close\r\n\r\nsecret".encode())
            await writer.drain()
        except asyncio.IncompleteReadError:
            pass  # who only connects
        finally:
            writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1], heard


async def test_the_workload_is_asked_with_the_headers_of_the_probe() -> None:
    async with workload() as (port, heard):
        path = f"/{port}/health?full=1"
        headers = [["X-Probe", "yes"]]
        async with asked({path: {"http": port, "path": "/health?full=1", "timeout": 5, "headers": headers}}) as kubelet:
            answer = await kubelet.get(path, headers={"x-probe": "yes"})
            assert answer.status_code == 200
            assert "secret" not in answer.text
            assert heard[0].startswith("GET /health?full=1 HTTP/1.1")
            assert "x-probe: yes" in heard[0]
            assert f"{ELSEWHERE}:{port}" in heard[0]  # as if the kubelet had asked the workload itself
            for other in (f"/{port}/admin", f"/{port}/health", "/health?full=1", "/", f"/tcp/{port}"):
                assert (await kubelet.get(other)).status_code == 404
            assert (await kubelet.post(path)).status_code == 404
            assert len(heard) == 1


async def test_nobody_tells_a_workload_more_than_its_probe_says() -> None:
    """It may trust what comes from the loopback."""
    forged = {
        "x-forwarded-client-cert": "URI=spiffe://default/admin", "x-forwarded-for": "127.0.0.1", "cookie": "a=b",
        "authorization": "Basic eA==", "x-probe": "no", "host": "admin.example", "user-agent": "somebody",
    }  # fmt: skip
    declared = [["Authorization", "Bearer probe"], ["X-Probe", "yes"], ["Host", "shop.example"]]
    async with workload() as (port, heard):
        target = {"http": port, "path": "/", "timeout": 5}
        async with asked({"/p": target, "/declared": {**target, "headers": declared}}) as kubelet:
            for path in ("/p", "/declared"):
                assert (await kubelet.get(path, headers=forged)).status_code == 200
            agent = "kube-probe/1.34"
            assert (await kubelet.get("/p", headers={"user-agent": agent})).status_code == 200
            own = {name: value for name, value in declared}
            assert (await kubelet.get("/declared", headers=own)).status_code == 200
    for head in heard[:2]:
        assert not any(f"{name}: {value}" in head.lower() for name, value in forged.items())
        assert f"\r\nhost: 127.0.0.1:{port}\r\n" in head
    assert f"user-agent: {agent}" in heard[2]
    assert f"host: {ELSEWHERE}:{port}" in heard[2]
    for name, value in declared:
        assert f"\r\n{name.lower()}: {value}\r\n" in heard[3]


async def test_connections_have_an_end_and_those_of_others_are_answered() -> None:
    async with workload() as (port, _), asked({"/p": {"http": port, "path": "/", "timeout": 5}}) as kubelet:
        where = (kubelet.base_url.host, kubelet.base_url.port or 0)
        async with AsyncExitStack() as stack:
            readers = []
            for _ in range(33):
                reader, writer = await asyncio.open_connection(*where, local_addr=("127.0.0.9", 0))
                stack.callback(writer.close)
                readers.append(reader)
            with contextlib.suppress(ConnectionResetError):
                assert await readers[-1].read() == b""  # the one too many is closed, with nothing asked
            assert (await kubelet.get("/p")).status_code == 200


@pytest.mark.parametrize(("status", "told"), [(204, 200), (302, 200), (404, 404), (500, 500)])
async def test_a_status_of_the_workload_is_that_of_the_probe(status: int, told: int) -> None:
    async with workload(status) as (port, _), asked({"/p": {"http": port, "path": "/", "timeout": 5}}) as kubelet:
        assert (await kubelet.get("/p")).status_code == told


async def test_a_workload_that_is_not_there_or_says_nothing_is_not_ready() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    (closed,) = free_ports(1)
    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        targets = {"/closed": {"http": closed, "path": "/", "timeout": 5}, "/tcp": {"tcp": closed, "timeout": 5}}
        async with asked({**targets, "/silent": {"http": port, "path": "/", "timeout": 1}}) as kubelet:
            for path in ("/closed", "/tcp", "/silent"):
                assert (await kubelet.get(path)).status_code == 503


async def test_a_connection_is_enough_for_a_probe_of_tcp() -> None:
    async with workload() as (port, _), asked({f"/tcp/{port}": {"tcp": port, "timeout": 5}}) as kubelet:
        assert (await kubelet.get(f"/tcp/{port}")).status_code == 200


@pytest.mark.parametrize(("state", "told"), [(1, 200), (2, 503)])
async def test_workloads_of_grpc_say_whether_they_serve(state: int, told: int) -> None:
    asked_for: list[str] = []

    async def check(request: wrappers_pb2.StringValue, _: Any) -> wrappers_pb2.Int32Value:
        asked_for.append(request.value)
        return wrappers_pb2.Int32Value(value=state)

    method = grpc.unary_unary_rpc_method_handler(
        check, wrappers_pb2.StringValue.FromString, wrappers_pb2.Int32Value.SerializeToString
    )
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": method})])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with asked({"/grpc": {"grpc": port, "service": "a.B", "timeout": 60}}) as kubelet:
            assert (await kubelet.get("/grpc")).status_code == told
    finally:
        await server.stop(None)
    assert asked_for == ["a.B"]


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"port": 1}', '{"port": "x", "targets": {}}', '{"port":1,"targets":{"/":{}}}']
)
def test_what_the_injector_did_not_write_is_refused(text: str) -> None:
    with pytest.raises(Misconfigured, match="KUMA_DATAPLANE_PROBES"):
        probes.listen(text, "127.0.0.1")
