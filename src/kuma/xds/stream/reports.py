"""Receives what proxies report of their callers: Envoy's access log service over gRPC.

A stream is authenticated as that of discovery is, and a proxy reports about its own inbounds only. Reports are read no
faster than they can be counted: Envoy drops what it cannot send, and waits with nothing else for it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import grpc
import grpc.aio
import structlog
from envoy.service.accesslog.v3 import als_pb2
from google.protobuf.message import DecodeError

from kuma.base.clock import Clock
from kuma.base.errors import AccessDenied, InvalidResource, KumaError, Unauthenticated, Unavailable
from kuma.policy.permissions import Permissions
from kuma.resources.resource import Key
from kuma.xds.observation import entries
from kuma.xds.observation.decisions import Decisions
from kuma.xds.observation.entries import Reporter
from kuma.xds.proxies.meshes import Meshes
from kuma.xds.proxies.traffic_recorder import TrafficRecorder
from kuma.xds.stream import proxy_authentication, stream_limits
from kuma.xds.stream.calls import SideStream, StreamAdmission, check_size, status_of, token_of
from kuma.xds.stream.front import Passed
from kuma.xds.stream.revocation import TokenRevocation
from kuma.xds.stream.stream_limits import TooMany

log = structlog.get_logger(__name__)

_SERVICE = "envoy.service.accesslog.v3.AccessLogService"
_FIRST = 15.0
"""Seconds in which a stream has to say whose it is."""
_MOST_OF_PROXY = 8
"""Streams of one proxy: each thread of its Envoy has one. More are refused, and what those threads see is not known."""
_PER_SECOND = 200
"""Entries of one stream that are counted a second, in the long run."""
_IN_ONE_TURN = 10
"""Entries that are counted before everybody else has a turn."""


class Reports:
    """Serves streams of reports."""

    def __init__(
        self,
        meshes: Meshes,
        admission: StreamAdmission,
        recorder: TrafficRecorder,
        revocation: TokenRevocation,
        clock: Clock,
        *,
        most: int,
    ) -> None:
        """Keeps its collaborators; `most` is how many streams there may be at once."""
        self._most = most
        self._open = Counter[Key]()
        self._meshes = meshes
        self._authenticator = admission.authenticator
        self._limiter = admission.limiter
        self._front = admission.front
        self._refusals = admission.refusals
        self._recorder = recorder
        self._revocation = revocation
        self._clock = clock
        self._rules: dict[str, tuple[Permissions, datetime]] = {}
        """The permissions of each mesh, and since when they have held as far as is known."""
        meshes.on_change(self._note_rules)

    def _note_rules(self, changed: frozenset[str]) -> None:
        for mesh in changed:
            config = self._meshes.state(mesh).config
            if config.view.mesh is None:
                self._rules.pop(mesh, None)
            elif mesh not in self._rules or self._rules[mesh][0] is not config.permissions:
                self._rules[mesh] = config.permissions, self._clock.now()

    @property
    def handler(self) -> Any:
        """The service, for a gRPC server."""
        method = grpc.stream_unary_rpc_method_handler(self.receive, request_deserializer=None, response_serializer=None)
        return grpc.method_handlers_generic_handler(_SERVICE, {"StreamAccessLogs": method})

    async def receive(self, messages: AsyncIterator[bytes], context: Any) -> bytes:
        """Serves one `StreamAccessLogs` stream to its end."""
        peer = self._front.peer(context.peer())
        try:
            with self._front.stream(context.peer()) as passed:
                await self._receive(messages, context, peer, passed)
        except TimeoutError:
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "the first message did not come in time")
        except TooMany as error:
            await context.abort(status_of(error), str(error))
        except KumaError as error:
            log.warning("reports refused", peer=peer, reason=str(error))
            if isinstance(error, Unauthenticated | AccessDenied):
                self._refusals.record(stream_limits.address_of(peer), server="reports", reason=str(error))
            await context.abort(status_of(error), str(error))
        return b""

    async def _receive(self, messages: AsyncIterator[bytes], context: Any, peer: str, passed: Passed) -> None:
        with self._limiter.pending(peer):
            async with asyncio.timeout(_FIRST):
                first = await anext(messages, None)
        if first is None:
            return
        await self._meshes.until_listed()
        try:
            token = token_of(context)
            await self._authenticator.review(token)
            stream, message = self._admitted(first, token)
        except Unavailable:
            raise
        except KumaError:
            self._limiter.failed(peer)
            raise
        with self._counted(stream.key):
            passed.known()
            with self._revocation.watched(stream):
                async with stream.until_ended():
                    decisions = Decisions()
                    await self._count(stream.key, message, decisions)
                    del first, message  # they would be kept as long as the stream
                    async for more in messages:
                        self._authorize(stream)
                        await self._count(stream.key, _decoded(more), decisions)

    def _admitted(self, first: bytes, token: str) -> tuple[SideStream, Any]:
        """Authenticates a stream; returns it with its first message, which is not parsed before."""
        holder = self._authenticator.authenticate_holder(token)
        message = _decoded(first)
        key = proxy_authentication.proxy_key(message.identifier.node)
        stream = SideStream(key, token, self._authenticator.identify(key.mesh, token, holder))
        self._authorize(stream)
        return stream, message

    @contextmanager
    def _counted(self, key: Key) -> Iterator[None]:
        if self._open[key] >= _MOST_OF_PROXY or self._open.total() >= self._most:
            raise TooMany("there are too many streams of reports")
        self._open[key] += 1
        try:
            yield
        finally:
            self._open[key] -= 1
            if not self._open[key]:
                del self._open[key]

    def _authorize(self, stream: SideStream) -> None:
        """Checks that a stream is of whoever may run for its Dataplane, as long as it lasts.

        Raises:
            AccessDenied: it is not, or not any more; or there is no such Dataplane.
        """
        dataplane = self._meshes.state(stream.key.mesh).config.view.dataplanes.get(stream.key.name)
        if dataplane is None:
            raise AccessDenied(proxy_authentication.not_found(stream.key))
        self._authenticator.authorize(stream.token, dataplane)

    async def _count(self, key: Key, message: Any, decisions: Decisions) -> None:
        config = self._meshes.state(key.mesh).config
        dataplane = config.view.dataplanes.get(key.name)
        if dataplane is None:
            return
        now = self._clock.now()
        _, ruled_since = self._rules.get(key.mesh, (config.permissions, now))
        reporter = Reporter(dataplane, config.level, config.permissions, ruled_since, decisions, now)
        reported = message.tcp_logs.log_entry
        for number, entry in enumerate(reported, start=1):
            found = reporter.connections(entry)
            if found is not None:
                self._recorder.note(key, *found)
            if number % _IN_ONE_TURN == 0:
                await asyncio.sleep(0)  # a message may have tens of thousands
        ahead = entries.clock_ahead(reported, now)
        if ahead is not None:
            self._recorder.clock(key, ahead)
        await self._clock.sleep(len(reported) / _PER_SECOND)


def _decoded(frame: bytes) -> Any:
    try:
        return als_pb2.StreamAccessLogsMessage.FromString(check_size(frame))
    except DecodeError:
        raise InvalidResource.of("", "the message is not a StreamAccessLogsMessage") from None
