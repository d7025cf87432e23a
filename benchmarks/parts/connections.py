"""Connections of simulated clients: one for each, as Envoys have them."""

from __future__ import annotations

from collections.abc import Sequence

import grpc
import grpc.aio

BACK_OFF = (
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 10_000),  # what a connection has until it is refused, TLS and all
    ("grpc.max_reconnect_backoff_ms", 1000),
)


def connection(ports: Sequence[int], ca_pem: bytes) -> grpc.aio.Channel:
    """A connection to the first of these ports that answers."""
    options = (("grpc.use_local_subchannel_pool", 1), ("grpc.ssl_target_name_override", "localhost"), *BACK_OFF)
    where = "ipv4:" + ",".join(f"127.0.0.1:{port}" for port in dict.fromkeys(ports))
    return grpc.aio.secure_channel(where, grpc.ssl_channel_credentials(ca_pem), options=options)
