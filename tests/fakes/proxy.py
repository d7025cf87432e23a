"""A proxy without an Envoy: a real delta ADS client over TLS that acknowledges what it gets, as Envoy would."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Sequence
from typing import Any

import grpc
import grpc.aio
from envoy.config.core.v3 import base_pb2
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.rpc import status_pb2
from grpc._cython import cygrpc  # type: ignore[attr-defined]

from kuma.base import aio
from kuma.resources import codec
from kuma.resources.resource import Resource
from kuma.xds.envoy import resource_names
from kuma.xds.envoy.resource import TypeUrl
from tests.fakes.patience import PATIENCE

_AGAIN = 0.05
EOF: Any = getattr(grpc.aio, "EOF")  # noqa: B009 - missing in the type stubs
METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"


def channel(port: int, ca_pem: bytes, more: Sequence[tuple[str, int]] = ()) -> grpc.aio.Channel:
    """A connection of its own to the discovery server on this machine."""
    options = (("grpc.use_local_subchannel_pool", 1), *more)
    return grpc.aio.secure_channel(f"localhost:{port}", grpc.ssl_channel_credentials(ca_pem), options=options)


class StreamEnded(Exception):
    """The control plane has ended the stream."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(f"{code}: {details}")
        self.code, self.details = code, details


async def _send(call: Any, request: Any) -> None:
    """Sends a request, unless the stream has ended: then reading tells why, as it does for an Envoy.

    This passes by the `write` of gRPC's client, which forgets the status of a stream that ends while it is sending,
    and has INTERNAL, "Internal error from Core", in its place.
    """
    with contextlib.suppress(cygrpc.InternalError):
        await call._cython_call.send_serialized_message(request.SerializeToString())


class FakeProxy:
    """Holds what it was sent. Subscribes as Envoy does: to all clusters and listeners, and to what these name."""

    def __init__(self, node_id: str, token: str, dataplane: Resource[Any] | None = None) -> None:
        self.node = base_pb2.Node(id=node_id)
        if dataplane is not None:
            self.node.metadata.update({"dataplane.resource": json.dumps(codec.to_universal(dataplane))})
        self.token = token
        self.held: dict[TypeUrl, dict[str, Any]] = {type_url: {} for type_url in TypeUrl}
        self.received: list[tuple[TypeUrl, int]] = []
        self.reject: Callable[[TypeUrl], str] = lambda type_url: ""
        self.faults: dict[tuple[TypeUrl, str], str] = {}
        """Why a resource is bad: its response is rejected, and the others in it are applied, as by Envoy."""
        self.silent = False
        self.may_answer: Callable[[], bool] = lambda: True
        """Asked before everything that it says to a response: it says nothing before this is so."""
        self._subscribed: dict[TypeUrl, set[str]] = {type_url: set() for type_url in TypeUrl}
        self._changed: aio.Latest[None] = aio.Latest(None)
        self._task: asyncio.Task[None] | None = None
        self._call: Any = None
        self._turn = asyncio.Lock()  # gRPC takes one message at a time

    def connect(self, to: grpc.aio.Channel) -> None:
        """Open the stream."""
        self._task = aio.spawn(self._run(to), name=f"proxy {self.node.id}")

    async def disconnect(self) -> None:
        """Close the stream, as a proxy that has gone away."""
        assert self._task is not None
        await aio.stop([self._task])

    @property
    def connected(self) -> bool:
        """Whether the stream is open."""
        return self._task is not None and not self._task.done()

    async def failure(self) -> StreamEnded:
        """The error that ends the stream."""
        assert self._task is not None
        try:
            async with asyncio.timeout(PATIENCE):
                await self._task
        except StreamEnded as error:
            return error
        raise AssertionError("the stream ended without an error")

    async def until(self, holds: Callable[[], Any], seconds: float = PATIENCE) -> None:
        """Return once `holds()`, asked again after every response, and now and then: it may be about the other side."""
        assert self._task is not None
        async with asyncio.timeout(seconds):
            while not holds():
                version = self._changed.version
                newer = aio.spawn(self._changed.newer_than(version), name="newer response")
                await asyncio.wait({newer, self._task}, timeout=_AGAIN, return_when=asyncio.FIRST_COMPLETED)
                if not newer.done():
                    await aio.stop([newer])
                if self._task.done():
                    self._task.result()

    async def ask(self, *names: str) -> None:
        """Ask for clusters by name, unless the stream has ended meanwhile."""
        with contextlib.suppress(grpc.aio.UsageError):
            request = discovery_pb2.DeltaDiscoveryRequest(type_url=TypeUrl.CLUSTER, resource_names_subscribe=names)
            async with self._turn:
                await _send(self._call, request)

    def names(self, type_url: TypeUrl) -> set[str]:
        """What it holds of one type."""
        return set(self.held[type_url])

    @property
    def certificate(self) -> bytes:
        """The chain of its identity; empty if it has none."""
        for name, value in self.held[TypeUrl.SECRET].items():
            if name.startswith("identity_cert:"):
                secret = secret_pb2.Secret.FromString(value.value)
                return bytes(secret.tls_certificate.certificate_chain.inline_bytes)
        return b""

    async def _run(self, to: grpc.aio.Channel) -> None:
        open_stream: Any = to.stream_stream
        call = open_stream(
            METHOD,
            request_serializer=discovery_pb2.DeltaDiscoveryRequest.SerializeToString,
            response_deserializer=discovery_pb2.DeltaDiscoveryResponse.FromString,
        )(metadata=(("authorization", self.token),))
        try:
            self._call = call
            await call.wait_for_connection()
            await _send(call, discovery_pb2.DeltaDiscoveryRequest(node=self.node, type_url=TypeUrl.CLUSTER))
            while (response := await call.read()) is not EOF:
                while not self.may_answer():
                    await asyncio.sleep(_AGAIN)
                # As Envoy does: listeners once the first clusters are there.
                first = [] if self.received else [discovery_pb2.DeltaDiscoveryRequest(type_url=TypeUrl.LISTENER)]
                for request in (*self._answers(response), *first):
                    if not self.silent:
                        async with self._turn:
                            await _send(call, request)
            raise StreamEnded(await call.code(), await call.details())
        except grpc.aio.AioRpcError as error:
            raise StreamEnded(await call.code(), await call.details()) from error
        finally:
            call.cancel()

    def _answers(self, response: Any) -> list[Any]:
        type_url = TypeUrl(response.type_url)
        self.received.append((type_url, response.ByteSize()))
        answer = discovery_pb2.DeltaDiscoveryRequest(type_url=type_url, response_nonce=response.nonce)
        whole = self.reject(type_url)
        reason = whole or "".join(self.faults.get((type_url, resource.name), "") for resource in response.resources)
        if reason:
            answer.error_detail.CopyFrom(status_pb2.Status(code=13, message=reason))
        if not whole:
            for resource in response.resources:
                if (type_url, resource.name) not in self.faults:
                    self.held[type_url][resource.name] = resource.resource
            for name in response.removed_resources:
                self.held[type_url].pop(name, None)
        answers = [answer, *self._subscriptions(response)]
        self._changed.set(None)
        return answers

    def _subscriptions(self, response: Any) -> list[Any]:
        """Ask for what the new resources refer to."""
        wanted: dict[TypeUrl, set[str]] = {}
        for resource in response.resources:
            body = resource.resource.value
            if response.type_url == TypeUrl.CLUSTER and not resource.name.startswith("localhost:"):
                wanted.setdefault(TypeUrl.ENDPOINTS, set()).add(resource.name)
            if (response.type_url == TypeUrl.LISTENER and b"route_config_name" in body) or b"\x1a" in body:
                mesh = self.node.id.partition(".")[0]
                secrets = {resource_names.identity_secret(mesh), resource_names.trust_bundle_secret(mesh)}
                secrets |= {resource_names.ADMIN_IDENTITY, resource_names.ADMIN_CA}
                wanted.setdefault(TypeUrl.SECRET, set()).update(s for s in secrets if s.encode() in body)
                if b"http_connection_manager" in body:
                    wanted.setdefault(TypeUrl.ROUTES, set()).add(resource.name)
        found = []
        for type_url, names in wanted.items():
            fresh = sorted(names - self._subscribed[type_url])
            self._subscribed[type_url] |= names
            if fresh:
                found.append(discovery_pb2.DeltaDiscoveryRequest(type_url=type_url, resource_names_subscribe=fresh))
        return found
