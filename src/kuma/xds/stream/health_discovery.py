"""Serves health discovery (HDS): a second stream of a connected proxy, on which it says which workloads answer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import grpc.aio
import structlog
from envoy.service.health.v3 import hds_pb2
from google.protobuf.message import DecodeError

from kuma.base import aio
from kuma.base.errors import AccessDenied, InvalidResource, KumaError, Unauthenticated, Unavailable
from kuma.resources.models.dataplane import Networking
from kuma.resources.resource import Key
from kuma.tokens.dataplane_tokens import DataplaneClaims
from kuma.xds.envoy.services import health_checks
from kuma.xds.envoy.services.health_checks import ProbeDefaults
from kuma.xds.proxies.connected_proxies import Proxies
from kuma.xds.proxies.meshes import Meshes
from kuma.xds.proxies.proxy import Proxy
from kuma.xds.proxies.readiness.workload_health import WorkloadHealth
from kuma.xds.stream import proxy_authentication, stream_limits
from kuma.xds.stream.calls import SideStream, StreamAdmission, check_size, status_of, token_of
from kuma.xds.stream.revocation import TokenRevocation
from kuma.xds.stream.stream_limits import TooMany

log = structlog.get_logger(__name__)

SERVICE, METHOD = "envoy.service.health.v3.HealthDiscoveryService", "StreamHealthCheck"
_FIRST_REQUEST = 15.0
"""Seconds in which a stream has to say whose it is."""
_CONNECTED = 15.0
"""Seconds in which the discovery stream of its proxy has to be there: Envoy opens both at once."""
_MOST_OF_PROXY = 4
"""Streams in the name of one proxy: its Envoy has one, and one that it has lost may linger."""


class NotConnected(KumaError):
    """The proxy has no discovery stream here, or no longer: it tries again."""


class _Stream(SideStream):
    """A stream; `changed` wakes it when its proxy joins, leaves, or may have to ask something else."""

    def __init__(self, key: Key, credential: str, token: DataplaneClaims) -> None:
        super().__init__(key, credential, token)
        self.changed = asyncio.Event()


class HealthDiscovery:
    """Serves streams. Each ends with the discovery stream of its proxy, and when its own token no longer holds."""

    def __init__(
        self,
        proxies: Proxies,
        meshes: Meshes,
        admission: StreamAdmission,
        health: WorkloadHealth,
        defaults: ProbeDefaults,
        revocation: TokenRevocation,
    ) -> None:
        self._proxies = proxies
        self._meshes = meshes
        self._authenticator = admission.authenticator
        self._limiter = admission.limiter
        self._refusals = admission.refusals
        self._front = admission.front
        self._health = health
        self._defaults = defaults
        self._revocation = revocation
        self._streams: dict[Key, set[_Stream]] = {}
        proxies.on_progress(self._progressed)

    def _progressed(self, proxy: Proxy) -> None:
        for stream in self._streams.get(proxy.key, ()):
            stream.changed.set()

    async def stream(self, requests: AsyncIterator[bytes], context: Any) -> None:
        """Serve one `StreamHealthCheck` stream to its end."""
        peer = self._front.peer(context.peer())
        try:
            with self._front.stream(context.peer()) as passed:
                stream = await self._admitted(requests, context, peer)
                passed.known()
                with self._following(stream):
                    async with stream.until_ended():
                        proxy = await self._connected(stream, peer)
                        await self._serve(stream, proxy, requests, context)
        except TimeoutError:
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "the first request did not come in time")
        except (NotConnected, Unavailable) as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        except (Unauthenticated, AccessDenied, InvalidResource, TooMany) as error:
            log.warning("health discovery refused", peer=peer, reason=str(error))
            if isinstance(error, Unauthenticated | AccessDenied):
                address = stream_limits.address_of(peer)
                self._refusals.record(address, server="health discovery", reason=str(error))
            await context.abort(status_of(error), str(error))

    async def _admitted(self, requests: AsyncIterator[bytes], context: Any, peer: str) -> _Stream:
        """Authenticates whoever opens a stream, as one who may run for the Dataplane that the first request names."""
        with self._limiter.pending(peer):
            async with asyncio.timeout(_FIRST_REQUEST):
                first = await anext(requests, b"")
        await self._meshes.until_listed()  # the keys of tokens are known by then
        try:
            token = token_of(context)
            await self._authenticator.review(token)
            holder = self._authenticator.authenticate_holder(token)
            key = proxy_authentication.proxy_key(_decoded(first).health_check_request.node)
            stream = _Stream(key, token, self._authenticator.identify(key.mesh, token, holder))
            self._authorize(stream)
        except Unavailable:
            raise
        except KumaError:
            self._limiter.failed(peer)
            raise
        return stream

    def _authorize(self, stream: _Stream) -> None:
        """Checks that a stream may speak for what its Dataplane is by now.

        Where there is none, its proxy brings it along, on the other stream: then this is asked again.

        Raises:
            AccessDenied: it may not.
        """
        dataplane = self._meshes.state(stream.key.mesh).config.view.dataplanes.get(stream.key.name)
        if dataplane is not None:
            self._authenticator.authorize(stream.token, dataplane)

    @contextlib.contextmanager
    def _following(self, stream: _Stream) -> Iterator[None]:
        key = stream.key
        if len(self._streams.get(key, ())) >= _MOST_OF_PROXY:
            raise TooMany("there are too many streams of health discovery of this proxy")
        self._streams.setdefault(key, set()).add(stream)
        try:
            with self._revocation.watched(stream):
                yield
        finally:
            self._streams[key].discard(stream)
            if not self._streams[key]:
                del self._streams[key]

    async def _connected(self, stream: _Stream, peer: str) -> Proxy:
        """Returns the proxy that a stream is of, once it is connected from the same address."""
        key = stream.key
        try:
            async with asyncio.timeout(_CONNECTED):
                while (proxy := self._proxies.get(key)) is None:
                    await stream.changed.wait()
                    stream.changed.clear()
        except TimeoutError:
            raise NotConnected(f"{key.mesh}.{key.name} has no discovery stream here; try again later") from None
        if not proxy.is_at(stream_limits.host_of(peer)):
            raise AccessDenied(f"the discovery stream of {key.mesh}.{key.name} comes from another address")
        return proxy

    async def _serve(self, stream: _Stream, proxy: Proxy, requests: AsyncIterator[bytes], context: Any) -> None:
        name = f"{proxy.key.mesh}.{proxy.key.name}"
        tasks = (
            aio.spawn(self._ask(stream, proxy, context), name=f"probes of {name}"),
            aio.spawn(self._hear(stream, proxy, requests), name=f"health of {name}"),
        )
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            self._health.silent(proxy.key)
            await aio.stop(task for task in tasks if not task.done())
            for task in tasks:
                aio.failure(task)  # seen: the first is what ended the stream

    async def _ask(self, stream: _Stream, proxy: Proxy, context: Any) -> None:
        """Sends what the proxy is to ask of its workloads, whenever that is something else."""
        asked = b""
        while self._proxies.get(proxy.key) is proxy:
            self._authorize(stream)
            wanted = self._specifier(proxy.key)
            if wanted != asked:
                await context.write(wanted)
                asked = wanted
            await stream.changed.wait()
            stream.changed.clear()
        raise NotConnected(f"the discovery stream of {proxy.key.mesh}.{proxy.key.name} has ended")

    def _specifier(self, key: Key) -> bytes:
        config = self._meshes.state(key.mesh).config
        networking = self._networking(key)
        if networking is None or not any(health_checks.probed(networking, config.withheld(key.name))):
            return b""  # Envoy asks nothing, and reports nothing
        wanted = health_checks.specifier(networking, config.withheld(key.name), self._defaults)
        return bytes(wanted.SerializeToString(deterministic=True))

    def _networking(self, key: Key) -> Networking | None:
        dataplane = self._meshes.state(key.mesh).config.view.dataplanes.get(key.name)
        return dataplane.spec.net if dataplane else None

    async def _hear(self, stream: _Stream, proxy: Proxy, requests: AsyncIterator[bytes]) -> None:
        """Takes in what the proxy says. It says it again and again; the same is not looked at twice."""
        count = self._limiter.counter()
        before: tuple[bytes, Networking | None] = b"", None
        async for frame in requests:
            count()
            networking = self._networking(proxy.key)
            if networking is None or (before[0] == frame and before[1] is networking):
                continue
            before = frame, networking
            self._authorize(stream)
            report = _decoded(frame).endpoint_health_response
            self._health.said(proxy.key, health_checks.answers(networking, report))


def _decoded(frame: bytes) -> Any:
    try:
        return hds_pb2.HealthCheckRequestOrEndpointHealthResponse.FromString(check_size(frame))
    except DecodeError:
        raise InvalidResource.of("", "the message is not a HealthCheckRequestOrEndpointHealthResponse") from None
