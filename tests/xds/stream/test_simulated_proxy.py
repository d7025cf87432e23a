"""The proxy that stands in for an Envoy in tests tells what has ended its stream, also if it was sending just then."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
from envoy.service.discovery.v3 import discovery_pb2

from kuma.xds.envoy.resource import TypeUrl
from tests.fakes.proxy import METHOD, FakeProxy


async def test_a_proxy_that_is_sending_learns_why_its_stream_ends() -> None:
    """gRPC's client replaces the status by INTERNAL if a message that is under way cannot be sent any more."""

    async def serve(requests: AsyncIterator[bytes], context: Any) -> None:
        await anext(requests)
        for nonce in "abc":
            response = discovery_pb2.DeltaDiscoveryResponse(type_url=TypeUrl.CLUSTER, nonce=nonce)
            await context.write(response.SerializeToString())
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, "not allowed any more")

    _, service, method = METHOD.split("/")
    handler = grpc.stream_stream_rpc_method_handler(serve)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    ends = set()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        for _ in range(100):
            proxy = FakeProxy("default.web-01", "token")
            proxy.connect(channel)
            error = await proxy.failure()
            ends.add((error.code, error.details))
    await server.stop(None)
    assert ends == {(grpc.StatusCode.PERMISSION_DENIED, "not allowed any more")}
