"""Simulated proxies in a process of their own, each with a connection of its own, which come back when they lose it.

They subscribe and acknowledge as Envoy does, and say what they have when they come back. What they were sent and how
often they have asked is counted, so that a bare server can have the same conversation: see `bare`.

    python -m benchmarks.parts.simulated PORT[,PORT…] CA-FILE FIRST COUNT OF TOKEN [ALSO-CALLED]
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2

from benchmarks.parts import processes
from benchmarks.parts.connections import connection
from kuma.base import aio
from kuma.resources import codec
from kuma.resources.resource import Resource
from kuma.xds.envoy import resource_names
from kuma.xds.envoy.resource import TypeUrl
from tests.fakes.control_plane import dataplane
from tests.fakes.proxy import EOF, METHOD

MEMBERS = 20
"""Of each service, however large the mesh: a proxy is to have the same to do in each."""
SECRETS = (resource_names.identity_secret("default"), resource_names.trust_bundle_secret("default"))


def described(number: int, of: int, also: Sequence[str] = ()) -> Resource[Any]:
    """The Dataplane of one of many proxies: of one service among others of 20 members, which calls two others.

    And those in `also`, as all of its process do.
    """
    services = max(3, of // MEMBERS)
    calls = (f"s{(number + 1) % services}", f"s{(number + 2) % services}", *also)
    return dataplane(f"p{number}", f"s{number % services}", port=10 + number % 60000, calls=calls)


class Simulated:
    """One proxy: the versions that it has, by type and name, and sizes of what it has been sent and has said."""

    def __init__(self, found: Resource[Any], token: str) -> None:
        self.node = base_pb2.Node(id=f"{found.mesh}.{found.name}")
        self.node.metadata.update({"dataplane.resource": json.dumps(codec.to_universal(found))})
        self._token = token
        self._held: dict[TypeUrl, dict[str, str]] = {}
        self._names: dict[TypeUrl, set[str]] = {}
        self.sent: list[int] = []
        self.said: list[int] = []
        self.has_come = False
        """Whether it has opened a stream since it was last asked about."""

    async def run(self, to: grpc.aio.Channel) -> None:
        """Hold a stream, again and again."""
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError):
                await self._stream(to)
            await asyncio.sleep(0.2)

    async def _stream(self, to: grpc.aio.Channel) -> None:
        open_stream: Any = to.stream_stream
        call = open_stream(METHOD)(metadata=(("authorization", self._token),), wait_for_ready=True)
        self.has_come = True
        for first in self._firsts():
            await self._say(call, first)
        while (frame := await call.read()) is not EOF:
            self.sent.append(len(frame))
            for request in self._answers(discovery_pb2.DeltaDiscoveryResponse.FromString(frame)):
                await self._say(call, request)

    async def _say(self, call: Any, request: Any) -> None:
        frame = request.SerializeToString()
        self.said.append(len(frame))
        await call.write(frame)

    def _firsts(self) -> Sequence[Any]:
        """The first request of each type: of all that it has, in a new stream."""
        found = []
        for type_url in self._held or (TypeUrl.CLUSTER,):
            names = sorted(self._names.get(type_url, ()))
            versions = self._held.get(type_url, {})
            found.append(_request(type_url, resource_names_subscribe=names, initial_resource_versions=versions))
        found[0].node.CopyFrom(self.node)
        return found

    def _answers(self, response: Any) -> Sequence[Any]:
        type_url = TypeUrl(response.type_url)
        is_first = not self._held
        held = self._held.setdefault(type_url, {})
        held.update((resource.name, resource.version) for resource in response.resources)
        for name in response.removed_resources:
            held.pop(name, None)
        found = [_request(type_url, response_nonce=response.nonce), *self._subscriptions(response)]
        return [*found, _request(TypeUrl.LISTENER)] if is_first else found

    def _subscriptions(self, response: Any) -> Sequence[Any]:
        wanted: dict[TypeUrl, set[str]] = {}
        for resource in response.resources:
            body = resource.resource.value
            if response.type_url == TypeUrl.CLUSTER and not resource.name.startswith("localhost:"):
                wanted.setdefault(TypeUrl.ENDPOINTS, set()).add(resource.name)
            if (response.type_url == TypeUrl.LISTENER and b"route_config_name" in body) or b"\x1a" in body:
                wanted.setdefault(TypeUrl.SECRET, set()).update(name for name in SECRETS if name.encode() in body)
            if response.type_url == TypeUrl.LISTENER and b"http_connection_manager" in body:
                wanted.setdefault(TypeUrl.ROUTES, set()).add(resource.name)
        found = []
        for type_url, names in wanted.items():
            known = self._names.setdefault(type_url, set())
            fresh = sorted(names - known)
            known |= names
            if fresh:
                found.append(_request(type_url, resource_names_subscribe=fresh))
        return found


def _request(type_url: TypeUrl, **fields: Any) -> Any:
    return discovery_pb2.DeltaDiscoveryRequest(type_url=type_url, **fields)


async def main(
    ports: Sequence[int], ca_file: Path, first: int, count: int, of: int, token: str, also: Sequence[str] = ()
) -> None:
    """Connect, and answer questions."""
    proxies = [Simulated(described(number, of, also), token) for number in range(first, first + count)]

    def conversation(of_whom: Sequence[Simulated]) -> dict[str, Any]:
        """Of each of these on average since the last question: sizes of what it was sent, and what it said."""
        said, sent = [list(p.said) for p in of_whom], [list(p.sent) for p in of_whom]
        for proxy in proxies:
            proxy.said.clear()
            proxy.sent.clear()
            proxy.has_come = False
        return {"sent": _average(sent), "said": _average(said)}

    answers: processes.Answers = {
        "conversation": lambda: conversation(proxies),
        "conversation of who came": lambda: conversation([proxy for proxy in proxies if proxy.has_come]),
    }
    async with contextlib.AsyncExitStack() as stack:
        pem, tasks = ca_file.read_bytes(), []
        for number, proxy in enumerate(proxies):
            to = await stack.enter_async_context(connection([*ports[number % len(ports) :], *ports], pem))
            tasks.append(aio.spawn(proxy.run(to), name="proxy"))
        await processes.answer(answers)


def _average(sizes: Sequence[Sequence[int]]) -> list[int]:
    """As many messages as most have, of the average size at each place."""
    longest = sorted(map(len, sizes))[len(sizes) // 2] if sizes else 0
    return [
        sum(one[at] for one in sizes if len(one) > at) // max(1, sum(len(one) > at for one in sizes))
        for at in range(longest)
    ]


if __name__ == "__main__":
    given = sys.argv
    served = [int(port) for port in given[1].split(",")]
    besides = [name for name in given[7].split(",") if name] if len(given) > 7 else []
    asyncio.run(main(served, Path(given[2]), int(given[3]), int(given[4]), int(given[5]), given[6], besides))
