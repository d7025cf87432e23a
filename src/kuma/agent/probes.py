"""Asks the workload what an orchestrator would ask it that has no part in the mesh: one probe for each known path.

The orchestrator asks here in plaintext, and the workload is asked on the loopback. A path that is not known leads
nowhere, and of an answer only its status goes back.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote

import h11
import httpx

from kuma.agent.short_answers import ShortAnswers
from kuma.base.errors import Misconfigured
from kuma.base.system import sockets
from kuma.base.values import addresses
from kuma.base.values.urls import host_port

_VARIABLE = "KUMA_DATAPLANE_PROBES"
_LEAST, _MOST = 1, 300
"""Seconds that a workload may have."""
_ORCHESTRATOR = re.compile(rb"kube-[a-z]+/[0-9A-Za-z.+-]{1,50}")
_SERVING = 1
"""`SERVING` of grpc.health.v1."""


class Probes:
    """Answers 200 to a path whose probe succeeds, else 503 or the status of the workload."""

    def __init__(self, listener: socket.socket, targets: Mapping[str, Mapping[str, Any]]) -> None:
        self._server = ShortAnswers(listener, self._answer)
        address, self._port = listener.getsockname()[:2]
        self._loopback = "::1" if ":" in address else "127.0.0.1"
        self._targets = {unquote(path): target for path, target in targets.items()}

    async def run(self) -> None:
        """Answer until cancelled."""
        await self._server.run()

    async def _answer(self, request: h11.Request) -> tuple[int, str]:
        target = self._targets.get(unquote(request.target.decode("latin-1")))
        if request.method != b"GET" or target is None:
            return 404, "this is no probe of the workload"
        try:
            async with asyncio.timeout(target["timeout"]):
                return await self._asked(target, request)
        except TimeoutError:
            return 503, "the workload does not answer in time"
        except (OSError, httpx.HTTPError) as error:
            return 503, f"the workload cannot be asked: {type(error).__name__}"

    async def _asked(self, target: Mapping[str, Any], request: h11.Request) -> tuple[int, str]:
        if "tcp" in target:
            _, writer = await asyncio.open_connection(self._loopback, target["tcp"])
            writer.close()
            return 200, "the workload accepts connections"
        if "grpc" in target:
            return await self._grpc(target["grpc"], target.get("service", ""))
        scheme = "https" if "https" in target else "http"
        return await self._http(scheme, target[scheme], target, request)

    async def _http(self, scheme: str, port: int, target: Mapping[str, Any], request: h11.Request) -> tuple[int, str]:
        headers = self._headers(request, target.get("headers", ()), port)
        # The kubelet does not verify a workload either; this one is on the same machine.
        url = f"{scheme}://{host_port(self._loopback, port)}{target.get('path', '/')}"
        async with (
            httpx.AsyncClient(verify=False, trust_env=False, timeout=_MOST) as client,  # noqa: S501
            client.stream("GET", url, headers=headers) as answer,
        ):
            status = answer.status_code
        return (200 if status < 400 else status), f"the workload answers {status}"

    def _headers(
        self, request: h11.Request, declared: Sequence[tuple[bytes, bytes]], port: int
    ) -> list[tuple[bytes, bytes]]:
        """Returns what goes on of the headers: those that the probe declares, and how an orchestrator names itself.

        A workload trusts what comes from the loopback: nobody else is to tell it who they are, or what they want.
        """
        given = dict(request.headers)
        headers = [(name, value) for name, value in request.headers if (name, value) in declared]
        names = {name for name, _ in headers}
        if b"user-agent" not in names:
            agent = given.get(b"user-agent", b"")
            headers.append((b"user-agent", agent if _ORCHESTRATOR.fullmatch(agent) else b"kuma-dp"))
        if b"host" not in names:
            asked = given.get(b"host", b"").decode("latin-1").removesuffix(f":{self._port}")
            own = asked if addresses.parse(asked.strip("[]")) is not None else host_port(self._loopback, 0)[:-2]
            headers.append((b"host", f"{own}:{port}".encode("latin-1")))
        return headers

    async def _grpc(self, port: int, service: str) -> tuple[int, str]:
        import grpc.aio  # of few workloads, and not quickly loaded
        from google.protobuf import wrappers_pb2

        async with grpc.aio.insecure_channel(host_port(self._loopback, port)) as channel:
            # A request and an answer of grpc.health.v1 have one field, as these have.
            check = channel.unary_unary(
                "/grpc.health.v1.Health/Check",
                request_serializer=wrappers_pb2.StringValue.SerializeToString,
                response_deserializer=wrappers_pb2.Int32Value.FromString,
            )
            try:
                answer = await check(wrappers_pb2.StringValue(value=service))
            except grpc.aio.AioRpcError as error:
                return 503, f"the workload answers {error.code().name}"
        serves = answer.value == _SERVING
        return (200, "the workload serves") if serves else (503, "the workload does not serve")


def listen(text: str, address: str) -> Probes | None:
    """Returns what answers the probes that are described as JSON; None if there are none.

    Raises:
        Misconfigured: they are described otherwise, or their port cannot be listened on.
    """
    if not text:
        return None
    try:
        found = json.loads(text)
        port = int(found["port"])
        targets = {str(path): _target(target) for path, target in found["targets"].items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        raise Misconfigured(f"{_VARIABLE} is not what the injector writes: describe no probes by hand") from None
    try:
        listener = sockets.bound(address, port)
        listener.listen()
    except OSError as error:
        raise Misconfigured(
            f"{_VARIABLE}: {host_port(address, port)}: {error.strerror}; choose another port with the annotation "
            "kuma.io/virtual-probes-port"
        ) from None
    listener.setblocking(False)
    return Probes(listener, targets)


def _target(given: Mapping[str, Any]) -> Mapping[str, Any]:
    (kind,) = (name for name in ("http", "https", "tcp", "grpc") if name in given)
    seconds = min(max(int(given.get("timeout", _LEAST)), _LEAST), _MOST)
    headers = [(str(name).lower().encode(), str(value).strip().encode()) for name, value in given.get("headers", ())]
    return {**given, kind: int(given[kind]), "timeout": seconds, "headers": headers}
