"""Formats of access logs: text with operators between percent signs, of which Envoy fills in the values.

One that Envoy does not know would have it reject the whole listener: so only those are taken that it has.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from kuma.resources.resource import plain

OURS = (
    "KUMA_MESH", "KUMA_SOURCE_SERVICE", "KUMA_DESTINATION_SERVICE", "KUMA_SOURCE_ADDRESS",
    "KUMA_SOURCE_ADDRESS_WITHOUT_PORT", "KUMA_TRAFFIC_DIRECTION",
)  # fmt: skip
"""Operators of the original's, which are filled in here."""
PLAIN = frozenset({
    *OURS, "START_TIME", "PROTOCOL", "RESPONSE_CODE", "RESPONSE_CODE_DETAILS", "CONNECTION_TERMINATION_DETAILS",
    "BYTES_RECEIVED", "BYTES_SENT", "DURATION", "REQUEST_DURATION", "RESPONSE_DURATION", "RESPONSE_TX_DURATION",
    "RESPONSE_FLAGS", "ROUTE_NAME", "VIRTUAL_CLUSTER_NAME", "REQUEST_HEADERS_BYTES", "RESPONSE_HEADERS_BYTES",
    "RESPONSE_TRAILERS_BYTES", "UPSTREAM_WIRE_BYTES_SENT", "UPSTREAM_WIRE_BYTES_RECEIVED",
    "UPSTREAM_HEADER_BYTES_SENT", "UPSTREAM_HEADER_BYTES_RECEIVED", "DOWNSTREAM_WIRE_BYTES_SENT",
    "DOWNSTREAM_WIRE_BYTES_RECEIVED", "DOWNSTREAM_HEADER_BYTES_SENT", "DOWNSTREAM_HEADER_BYTES_RECEIVED",
    "UPSTREAM_HOST", "UPSTREAM_CLUSTER", "UPSTREAM_LOCAL_ADDRESS", "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    "UPSTREAM_LOCAL_PORT", "UPSTREAM_REMOTE_ADDRESS", "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", "UPSTREAM_REMOTE_PORT",
    "UPSTREAM_REQUEST_ATTEMPT_COUNT", "UPSTREAM_TLS_CIPHER", "UPSTREAM_TLS_VERSION", "UPSTREAM_TLS_SESSION_ID",
    "UPSTREAM_PEER_ISSUER", "UPSTREAM_PEER_SUBJECT", "UPSTREAM_TRANSPORT_FAILURE_REASON",
    "DOWNSTREAM_TRANSPORT_FAILURE_REASON", "DOWNSTREAM_REMOTE_ADDRESS", "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_REMOTE_PORT", "DOWNSTREAM_DIRECT_REMOTE_ADDRESS", "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_DIRECT_REMOTE_PORT", "DOWNSTREAM_LOCAL_ADDRESS", "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_LOCAL_PORT", "DOWNSTREAM_PEER_URI_SAN", "DOWNSTREAM_LOCAL_URI_SAN", "DOWNSTREAM_PEER_SUBJECT",
    "DOWNSTREAM_LOCAL_SUBJECT", "DOWNSTREAM_PEER_ISSUER", "DOWNSTREAM_TLS_CIPHER", "DOWNSTREAM_TLS_VERSION",
    "DOWNSTREAM_TLS_SESSION_ID", "DOWNSTREAM_PEER_FINGERPRINT_256", "DOWNSTREAM_PEER_SERIAL",
    "DOWNSTREAM_PEER_CERT_V_START", "DOWNSTREAM_PEER_CERT_V_END", "GRPC_STATUS", "GRPC_STATUS_NUMBER", "HOSTNAME",
    "CONNECTION_ID", "STREAM_ID", "REQUESTED_SERVER_NAME", "FILTER_CHAIN_NAME",
})  # fmt: skip
"""Operators that stand alone. Those that show the environment, or what Envoy was started with, are none of them."""
OF_HEADERS = ("REQ", "RESP", "TRAILER")
"""Operators that name a header, with another one in its place after `?`, and the most characters after a colon."""
_HEADERS = re.compile(r"(?:REQ|RESP|TRAILER)\(:?[A-Za-z0-9_.-]+(?:\?:?[A-Za-z0-9_.-]+)?\)(?::[1-9][0-9]{0,4})?")
_TIME = re.compile(r"START_TIME\((?:[A-Za-z0-9 :./,+-]|T|%[YmdHMSsZzTFjfeyBbaAp]|%[1-9]f)*\)")
_OPERATOR = re.compile(r"%%|%(START_TIME\([^()]{0,100}\)|[^%]{0,200})%")
_DEFAULT_TCP = (
    "[%START_TIME%]", "%RESPONSE_FLAGS%", "%KUMA_MESH%",
    "%KUMA_SOURCE_ADDRESS_WITHOUT_PORT%(%KUMA_SOURCE_SERVICE%)->%UPSTREAM_HOST%(%KUMA_DESTINATION_SERVICE%)",
    "took %DURATION%ms,", "sent %BYTES_SENT% bytes,", "received: %BYTES_RECEIVED% bytes",
)  # fmt: skip
_DEFAULT_HTTP = (
    "[%START_TIME%]", "%KUMA_MESH%", '"%REQ(:METHOD)%', "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%", '%PROTOCOL%"',
    "%RESPONSE_CODE%", "%RESPONSE_FLAGS%", "%BYTES_RECEIVED%", "%BYTES_SENT%", "%DURATION%",
    "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%",
    *(f'"%{name}%"' for name in (
        "REQ(X-FORWARDED-FOR)", "REQ(USER-AGENT)", "REQ(X-B3-TRACEID?X-DATADOG-TRACEID)", "REQ(X-REQUEST-ID)",
        "REQ(:AUTHORITY)", "KUMA_SOURCE_SERVICE", "KUMA_DESTINATION_SERVICE", "KUMA_SOURCE_ADDRESS_WITHOUT_PORT",
        "UPSTREAM_HOST",
    )),
)  # fmt: skip
DEFAULT_TCP, DEFAULT_HTTP = " ".join(_DEFAULT_TCP), " ".join(_DEFAULT_HTTP)
"""The original's formats, which tools of its users read."""


def mistakes(text: str) -> Iterator[str]:
    """Says what is wrong with a format."""
    for found in _OPERATOR.finditer(text):
        operator = found[1]
        if operator is None or operator in PLAIN or _HEADERS.fullmatch(operator) or _TIME.fullmatch(operator):
            continue
        yield f'"%{plain(operator)}%" is no operator that can be used here; %% stands for a percent sign'
    if "%" in _OPERATOR.sub("", text):
        yield "has a percent sign that begins no operator; %% stands for one"
    if "\0" in text:
        yield "cannot have a character NUL"


def filled(text: str, values: Mapping[str, str]) -> str:
    """Returns a format with the values of our own operators, by their names."""
    return _OPERATOR.sub(lambda found: values.get(found[1] or "", found[0]), text)
