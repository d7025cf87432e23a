"""The gRPC server at which proxies have their streams: discovery, health discovery, and reports of callers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio

from kuma.base.system import sockets
from kuma.base.tls.server_identity import ServerIdentity
from kuma.xds.stream import health_discovery, store_health
from kuma.xds.stream.front import Front
from kuma.xds.stream.health_discovery import HealthDiscovery
from kuma.xds.stream.questions import Questions
from kuma.xds.stream.reports import Reports
from kuma.xds.stream.server import METHOD, SERVICE, Discovery

_KEEPALIVE = (
    # A proxy whose machine has vanished is noticed within half a minute.
    ("grpc.keepalive_time_ms", 15_000),
    ("grpc.keepalive_timeout_ms", 15_000),
    ("grpc.http2.ping_timeout_ms", 15_000),  # what counts if the machine goes on and only the proxy hangs
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),  # or gRPC would stop asking after two
    ("grpc.so_reuseport", 0),
    ("grpc.max_concurrent_streams", 100),  # on one connection; Envoy opens one
    ("grpc.max_metadata_size", 16 * 1024),
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.max_connection_idle_ms", 60_000),  # without a stream
)


def _handler(service: str, method: str, serve: Any) -> Any:
    """Serves streams of frames as they are: nothing is parsed before it is known whose they are."""
    handler = grpc.stream_stream_rpc_method_handler(serve, request_deserializer=None, response_serializer=None)
    return grpc.method_handlers_generic_handler(service, {method: handler})


def _credentials(identity: ServerIdentity) -> Any:
    """Shows the identity of now in every handshake. gRPC asks for it from threads of its own."""
    shown: list[tuple[bytes, bytes]] = [identity.pair]

    def newer() -> Any:
        if identity.pair == shown[0]:
            return None
        shown[0] = identity.pair
        return grpc.ssl_server_certificate_configuration([shown[0]])

    first = grpc.ssl_server_certificate_configuration([shown[0]])
    return grpc.dynamic_ssl_server_credentials(first, newer)


SETTING = "KUMA_XDS_SERVER_PORT"
"""Which says the port."""


class DiscoveryServer(sockets.OnPort):
    """The gRPC server, over TLS only: a token must not travel in the clear."""

    def __init__(
        self,
        discovery: Discovery,
        health: HealthDiscovery,
        front: Front,
        host: str,
        port: int,
        identity: ServerIdentity,
        *,
        streams: int,
        can_use_store: Callable[[], bool],
        questions: Questions,
        reports: Reports | None = None,
        listen: sockets.Listen = sockets.listening,
        is_shared: bool = False,
    ) -> None:
        """`streams` is how many proxies may be connected.

        Each may have a stream of discovery and one of health discovery; of reports there are at most two for each.
        `can_use_store` is what other control planes are told of us, `questions` has what else they ask.
        `is_shared` if others accept from the same socket, too.
        """
        super().__init__(host, port, SETTING, listen)
        self._is_shared = is_shared
        self._streams = 4 * streams
        self._health = health
        self._front = front
        self._discovery = discovery
        self._reports = reports
        self._can_use_store = can_use_store
        self._questions = questions
        self._identity = identity

    async def run(self) -> None:
        """Serve until cancelled.

        Raises:
            Misconfigured: the port is in use.
        """
        server = grpc.aio.server(options=_KEEPALIVE, maximum_concurrent_rpcs=self._streams)
        served = (
            (SERVICE, METHOD, self._discovery.delta),
            (health_discovery.SERVICE, health_discovery.METHOD, self._health.stream),
        )
        server.add_generic_rpc_handlers(tuple(_handler(*method) for method in served))
        server.add_generic_rpc_handlers((store_health.handler(self._can_use_store), self._questions.handler))
        if self._reports is not None:
            server.add_generic_rpc_handlers((self._reports.handler,))
        with self._listen() as listener:
            try:
                server.add_secure_port(self._front.open(), _credentials(self._identity))
                self._front.listening()
                await server.start()
                self._bound.set(listener.getsockname()[1])
                await self._front.serve(listener, is_shared=self._is_shared)
            finally:
                await server.stop(grace=None)
                self._front.close()
