"""A proxy that reports its callers, as Envoy does, without an Envoy."""

from __future__ import annotations

from typing import Any

import grpc
import grpc.aio
from envoy.data.accesslog.v3 import accesslog_pb2
from envoy.service.accesslog.v3 import als_pb2

from kuma.xds.envoy.listeners import reports
from tests.fakes.control_plane import Running

METHOD = "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs"


def entry(chain: str = "mesh_tls", *uris: str, port: int = 80, address: str = "10.0.0.9", **more: Any) -> Any:
    found = accesslog_pb2.TCPAccessLogEntry()
    common = found.common_properties
    common.downstream_local_address.socket_address.address = "10.0.0.1"
    common.downstream_local_address.socket_address.port_value = port
    common.downstream_direct_remote_address.socket_address.address = address
    common.custom_tags[reports.CHAIN] = chain
    for uri in uris:
        common.tls_properties.peer_certificate_properties.subject_alt_name.add(uri=uri)
    for name, value in more.items():
        setattr(common, name, value)
    return found


async def report(cp: Running, token: str, *entries: Any, node: str = "default.backend-01") -> grpc.StatusCode:
    """The status of a stream on which this was reported."""
    message = als_pb2.StreamAccessLogsMessage()
    message.identifier.node.id = node
    message.tcp_logs.log_entry.extend(entries)
    open_stream: Any = (await cp.channel()).stream_unary
    call = open_stream(METHOD, request_serializer=als_pb2.StreamAccessLogsMessage.SerializeToString)(
        iter([message]), metadata=(("authorization", token),)
    )
    code: grpc.StatusCode = await call.code()
    return code
