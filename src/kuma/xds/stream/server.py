"""The discovery server: delta ADS over gRPC, authenticated, one stream per proxy.

A generic handler is used, because responses are spliced from bytes that were serialised before (see `entry`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import structlog
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.message import DecodeError

from kuma.base import aio
from kuma.base.audit import ACTOR
from kuma.base.errors import AccessDenied, InvalidResource, KumaError, Unauthenticated, Unavailable
from kuma.base.values import addresses, printable
from kuma.resources.models.dataplane import DataplaneSpec
from kuma.resources.resource import Key, Resource
from kuma.tokens import dataplane_tokens
from kuma.tokens.dataplane_tokens import DataplaneClaims
from kuma.tokens.signing_keys import Expired
from kuma.xds.delta.session import Request, Response
from kuma.xds.envoy.resource import TypeUrl, encode_response
from kuma.xds.envoy.services import serving_label
from kuma.xds.envoy.services.clusters import HTTP_PROTOCOLS
from kuma.xds.proxies.connected_proxies import Proxies
from kuma.xds.proxies.elsewhere.proxies_elsewhere import ProxiesElsewhere
from kuma.xds.proxies.metrics import Metrics
from kuma.xds.proxies.proxy import Proxy, ProxyContext
from kuma.xds.proxies.traffic_recorder import TrafficRecorder
from kuma.xds.stream import proxy_authentication, stream_limits
from kuma.xds.stream.calls import StreamAdmission, status_of, token_of
from kuma.xds.stream.deregistration import Deregistration
from kuma.xds.stream.front import Passed
from kuma.xds.stream.proxy_authentication import Presented
from kuma.xds.stream.stream_limits import TooMany
from kuma.xds.stream.writer import Sender

log = structlog.get_logger(__name__)

SERVICE, METHOD = "envoy.service.discovery.v3.AggregatedDiscoveryService", "DeltaAggregatedResources"
_FIRST_REQUEST = 15.0
"""Seconds in which a stream has to say whose it is."""
_LONGEST_REASON = 2_000
"""Characters of a rejection's reason that are logged and stored; the proxy could send millions."""


class Superseded(KumaError):
    """Raised when another stream speaks for the same proxy now: after a lost connection the old one may linger."""


class Occupied(KumaError):
    """A proxy at another address has a stream in this name: a token that leaked does not take its place."""


_STATUS = {
    Occupied: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Superseded: grpc.StatusCode.ABORTED,
}


def _occupied(key: Key) -> Occupied:
    return Occupied(
        f"there is already an active stream from this node, {key.mesh}.{key.name}, at another address; "
        "try again later. If you have not moved the proxy, somebody else has its token: revoke it"
    )


class Discovery:
    """Serves streams, and owns the table of connected proxies."""

    def __init__(
        self,
        proxies: Proxies,
        context: ProxyContext,
        admission: StreamAdmission,
        deregistration: Deregistration,
        metrics: Metrics,
        *,
        send_seconds: float,
        most: int,
        elsewhere: ProxiesElsewhere,
        traffic: TrafficRecorder | None = None,
    ) -> None:
        """Keeps its collaborators; serves `most` proxies at most. Without `traffic` none is asked to report callers."""
        self._most = most
        self._traffic = traffic
        self._elsewhere = elsewhere
        self._proxies = proxies
        self._context = context
        self._meshes = context.meshes
        self._insights = context.insights
        self._authenticator = admission.authenticator
        self._limiter = admission.limiter
        self._refusals = admission.refusals
        self._front = admission.front
        self._deregistration = deregistration
        self._metrics = metrics
        self._send_seconds = send_seconds

    async def delta(self, requests: AsyncIterator[bytes], context: Any) -> None:
        """Serve one `DeltaAggregatedResources` stream to its end."""
        peer = self._front.peer(context.peer())
        try:
            with self._front.stream(context.peer()) as passed:
                await self._stream(requests, context, peer, passed)
        except (grpc.aio.AbortError, grpc.aio.UsageError):
            raise
        except Exception:
            log.exception("stream failed", peer=peer)  # the proxy is told nothing of it, and tries again
            await context.abort(grpc.StatusCode.INTERNAL, "internal error")

    async def _stream(self, frames: AsyncIterator[bytes], context: Any, peer: str, passed: Passed) -> None:
        try:
            opened = await self._open(frames, context, peer, passed)
        except TimeoutError:
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "the first request did not come in time")
            return
        except KumaError as error:
            self._metrics.refused.inc()
            log.warning("proxy refused", peer=peer, reason=str(error))
            if isinstance(error, Unauthenticated | AccessDenied | Occupied):
                self._refusals.record(stream_limits.address_of(peer), server="discovery", reason=str(error))
            prefix = "" if isinstance(error, InvalidResource | TooMany | Occupied) else "authentication failed: "
            await context.abort(_status(error), f"{prefix}{error}")
            return
        if opened is None:
            return
        proxy, first, verified_by = opened
        del opened
        try:
            # Once more: from here on the stream is ended when its token is revoked, which it may have been meanwhile.
            self._authenticator.confirm(proxy.key.mesh, proxy.credential, proxy.token, verified_by)
            proxy.receive(_request(first))
            del first, verified_by  # they would be kept as long as the stream
            await self._serve(proxy, frames, context)
        except (Superseded, Unauthenticated, AccessDenied, InvalidResource, TooMany) as error:
            log.warning("stream ended", mesh=proxy.key.mesh, dataplane=proxy.key.name, reason=str(error))
            await context.abort(_status(error), str(error))
        finally:
            self._disconnect(proxy)

    async def _open(
        self, frames: AsyncIterator[bytes], context: Any, peer: str, passed: Passed
    ) -> tuple[Proxy, Any, object] | None:
        """Returns the proxy of a stream from `peer`, its first request, and what its token was verified by.

        None if it has asked for nothing.
        """
        with self._limiter.pending(peer):
            async with asyncio.timeout(_FIRST_REQUEST):
                frame = await anext(frames, None)
        if frame is None:
            return None
        token = token_of(context)
        await self._meshes.until_listed()  # the keys of tokens are known by then
        holder = await self._holder(token, peer)
        first = _decoded(frame)
        who, identity = self._admitted(first.node, token, holder, peer)
        verified_by = self._authenticator.verifies_by(who.key.mesh)
        passed.known()
        return await self._connect(who, token, identity, peer), first, verified_by

    async def _holder(self, token: str, peer: str) -> DataplaneClaims | None:
        """Authenticates whoever opens a stream, as far as that can be done before its request is parsed."""
        try:
            await self._authenticator.review(token)
            return self._authenticator.authenticate_holder(token)
        except Unavailable:
            raise  # nobody's fault here
        except KumaError:
            self._limiter.failed(peer)
            raise

    def _admitted(
        self, node: Any, token: str, holder: DataplaneClaims | None, peer: str
    ) -> tuple[Presented, DataplaneClaims]:
        """Identifies and admits the proxy of a stream, as far as its first request allows.

        Until then nothing is done in the name of a Dataplane: nobody uses up the streams of another, or keeps it from
        being removed.
        """
        try:
            key = proxy_authentication.proxy_key(node)
            identity = self._authenticator.identify(key.mesh, token, holder)
            who = proxy_authentication.presented(node)
            stored = self._meshes.state(who.key.mesh).config.view.dataplanes.get(who.key.name)
            known = tuple(filter(None, (stored, who.dataplane)))
            for dataplane in known:
                self._authenticator.authorize(identity, dataplane)
        except Expired as error:
            self._note_expired(key, error, peer)
            raise
        except KumaError:
            self._limiter.failed(peer)
            raise
        if known:
            self._limiter.stream(who.key)
        else:  # there is none, or it has only just been created
            self._limiter.failed(peer)
        self._check_is_free(who.key, stream_limits.host_of(peer))
        if len(self._proxies) >= self._most and who.key not in self._proxies:
            raise TooMany(f"{self._most} proxies are connected, which is as many as xdsServer.concurrentStreams allows")
        return who, identity

    def _note_expired(self, key: Key, error: Expired, peer: str) -> None:
        """Notes that a proxy is there whose only fault is that its token has expired.

        It gets nothing. But it is not guessing, and its callers are not sent elsewhere while its certificate holds.
        """
        stored = self._meshes.state(key.mesh).config.view.dataplanes.get(key.name)
        try:
            if stored is None:
                raise error
            self._authenticator.authorize(dataplane_tokens.claims_of(error.claims, key.mesh), stored)
            self._check_is_free(key, stream_limits.host_of(peer))
        except KumaError:
            self._limiter.failed(peer)
            return
        self._limiter.stream(key)
        self._deregistration.seen(key)

    def _check_is_free(self, key: Key, host: str) -> None:
        """Refuses a second stream from another address while there is one, unless its proxy said that it ends.

        From the same address it takes the place of the first: after a lost connection that one may linger. From
        another one it has to wait until the first is known to be lost, which takes half a minute.
        """
        older = self._proxies.get(key)
        if older is not None and not older.gives_way and not older.is_at(host):
            raise _occupied(key)

    async def _check_is_free_elsewhere(self, key: Key, host: str) -> None:
        """Does the same for a stream at another control plane. One that has ended unheard holds it for seconds."""
        stored = self._meshes.state(key.mesh).config.view.dataplanes.get(key.name)
        has_ended = stored is not None and serving_label.has_ended(stored)
        older = None if key in self._proxies or has_ended else await self._elsewhere.find(key)
        if older is not None and older.host and not addresses.are_of_one_machine(host, older.host):
            raise _occupied(key)

    async def _connect(self, who: Presented, token: str, identity: DataplaneClaims, peer: str) -> Proxy:
        ACTOR.set(f"proxy {who.key.mesh}.{who.key.name}")
        await self._check_is_free_elsewhere(who.key, stream_limits.host_of(peer))
        await self._deregistration.back(who.key)
        dataplane, is_new = await self._authenticator.admit(who, identity)

        # A proxy that reconnects still runs its configuration: it must not be sent less than what is stored.
        await self._meshes.until_seen(dataplane)
        host = stream_limits.host_of(peer)
        self._check_is_free(who.key, host)  # another one may have been faster
        record = await self._insights.open(who.key, who.version, is_new=is_new)
        envoy = who.envoy if self._traffic is not None else who.envoy._replace(reports=False)
        proxy = Proxy(
            who.key,
            token,
            identity,
            record,
            self._context,
            admin_port=who.admin_port,
            envoy=envoy,
            host=host,
            farewell_digest=who.farewell,
            holds_for=who.holds_for,
        )
        if self._traffic is not None and envoy.reports:
            self._traffic.began(who.key)
        older = self._proxies.get(who.key)
        if older is not None:
            older.end(Superseded(f"a newer stream of {who.key.mesh}.{who.key.name} has taken the place of this one"))
        self._proxies.add(proxy)
        self._metrics.streams.set(len(self._proxies))
        log.info("proxy connected", mesh=who.key.mesh, dataplane=who.key.name)
        if who.envoy.shortcoming and any(
            inbound.protocol not in HTTP_PROTOCOLS for inbound in dataplane.spec.net.inbound
        ):
            log.warning(
                "a TCP workload may be reached before its caller is admitted",
                mesh=who.key.mesh,
                dataplane=who.key.name,
                reason=who.envoy.shortcoming,
            )
        return proxy

    def _disconnect(self, proxy: Proxy) -> None:
        proxy.lose()
        self._insights.close(proxy.record, proxy.last_contact)
        if self._proxies.remove(proxy):
            last = proxy.last_contact
            self._deregistration.left(proxy.key, last.may_serve_until if last else None)
            if self._traffic is not None:
                self._traffic.ended(proxy.key)
            log.info("proxy disconnected", mesh=proxy.key.mesh, dataplane=proxy.key.name)
        self._metrics.streams.set(len(self._proxies))

    async def _serve(self, proxy: Proxy, frames: AsyncIterator[bytes], context: Any) -> None:
        name = f"{proxy.key.mesh}.{proxy.key.name}"
        sender = Sender(context.write, self._send_seconds, proxy.end)
        tasks = (
            aio.spawn(proxy.keeper.run(), name=f"identity of {name}"),
            aio.spawn(self._read(proxy, frames), name=f"requests of {name}"),
            aio.spawn(self._write(proxy, sender), name=f"responses to {name}"),
            *((aio.spawn(proxy.renew(), name=f"renewals for {name}"),) if proxy.holds_for else ()),
        )
        end = proxy.ended()
        try:
            await aio.first_done((*tasks, end))
            for task in tasks:
                if task.done():
                    task.result()
            if end.done():
                raise end.result()
            log.info("proxy has closed its side of the stream", mesh=proxy.key.mesh, dataplane=proxy.key.name)
        finally:
            takes_status = await sender.close()
            end.cancel()
            await aio.stop(task for task in tasks if not task.done())
            for task in tasks:
                aio.failure(task)  # seen: the first is what ended the stream, another follows from that
            if not takes_status:
                log.warning("stream reset: its proxy does not read", mesh=proxy.key.mesh, dataplane=proxy.key.name)
                raise asyncio.CancelledError  # leaves without a status: gRPC resets the stream

    async def _read(self, proxy: Proxy, frames: AsyncIterator[bytes]) -> None:
        count = self._limiter.counter()
        async for frame in frames:
            count()
            self._take_in(proxy, frame)
            del frame  # it would be kept until the next comes

    def _take_in(self, proxy: Proxy, frame: bytes) -> None:
        message = _decoded(frame)
        if message.HasField("node") and message.node.id and message.node.id != f"{proxy.key.mesh}.{proxy.key.name}":
            raise InvalidResource.of("node.id", "must not change within a stream")
        request = _request(message)
        if message.response_nonce:
            confirmation = "ACK" if request.error is None else "NACK"
            self._metrics.confirmations(request.type_url.bucket, confirmation).inc()
        proxy.receive(request)

    async def _write(self, proxy: Proxy, sender: Sender) -> None:
        await proxy.keeper.settled()  # so that the identity goes out with what needs it
        authorized: Resource[DataplaneSpec] | None = None
        while True:
            if await proxy.publish():
                authorized = self._still_authorized(proxy, authorized)
            for response in proxy.responses():
                await self._send(proxy, response, sender)
            await proxy.something_to_do()

    async def _send(self, proxy: Proxy, response: Response, sender: Sender) -> None:
        self._metrics.responses(response.type_url.bucket).inc()
        holds_for = proxy.holds_for if response.type_url is TypeUrl.LISTENER else 0.0
        await sender.send(
            encode_response(response.type_url, response.nonce, response.entries, response.removed, holds_for=holds_for)
        )

    def _still_authorized(self, proxy: Proxy, before: Resource[DataplaneSpec] | None) -> Resource[DataplaneSpec] | None:
        """Ends the stream if the Dataplane has been given tags that the proxy's token does not allow.

        Returns the Dataplane as it is now; if that is the one `before`, it was authorized then.
        """
        dataplane = self._meshes.state(proxy.key.mesh).config.view.dataplanes.get(proxy.key.name)
        if dataplane is not None and dataplane is not before:
            self._authenticator.authorize(proxy.token, dataplane)
        return dataplane


def _status(error: KumaError) -> grpc.StatusCode:
    return next((code for kind, code in _STATUS.items() if isinstance(error, kind)), status_of(error))


def _decoded(frame: bytes) -> Any:
    try:
        return discovery_pb2.DeltaDiscoveryRequest.FromString(frame)
    except DecodeError:
        raise InvalidResource.of("", "the message is not a DeltaDiscoveryRequest") from None


_TYPES = {type_url.value: type_url for type_url in TypeUrl}


def _request(message: Any) -> Request:
    type_url = _TYPES.get(message.type_url)
    if type_url is None:
        raise InvalidResource.of("type_url", f'unknown resource type "{message.type_url[:200]}"')
    return Request(
        type_url,
        tuple(message.resource_names_subscribe),
        tuple(message.resource_names_unsubscribe),
        dict(message.initial_resource_versions) if message.initial_resource_versions else {},
        message.response_nonce,
        _reason(message) if message.HasField("error_detail") else None,
    )


def _reason(message: Any) -> str:
    return printable.printable(message.error_detail.message[:_LONGEST_REASON], keep=printable.LINES)
