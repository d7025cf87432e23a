"""A resource as it travels: serialised once, its bytes shared by every proxy that uses it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from enum import StrEnum

from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import duration_pb2, message


class TypeUrl(StrEnum):
    """The resource types that are served, in the order in which they are sent (make before break)."""

    CLUSTER = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
    ENDPOINTS = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
    SECRET = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"  # noqa: S105 - a type's name
    LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"
    ROUTES = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"

    @property
    def bucket(self) -> str:
        """The name of this type's statistics."""
        return _BUCKETS[self]


_BUCKETS = dict(zip(TypeUrl, ("cds", "eds", "sds", "lds", "rds"), strict=True))


@dataclass(frozen=True, slots=True)
class Entry:
    """One named resource. `version` is a hash of the content; `wire` is a serialised `discovery.v3.Resource`."""

    name: str
    version: str
    wire: bytes = field(repr=False, compare=False)

    @classmethod
    def of(cls, name: str, content: message.Message) -> Entry:
        """Serialise `content`. Equal contents have equal versions."""
        return cls.serialised(name, type_url_of(content), serialised(content))

    @classmethod
    def serialised(cls, name: str, type_url: str, body: bytes) -> Entry:
        """Takes a content that is serialised. The same bytes have the same version."""
        version = hashlib.blake2b(body, digest_size=8).hexdigest()
        resource = discovery_pb2.Resource(name=name, version=version)
        resource.resource.type_url = type_url
        resource.resource.value = body
        return cls(name, version, resource.SerializeToString())

    @classmethod
    def known(cls, name: str, version: str) -> Entry:
        """Returns what names a resource that its receiver has, without the content."""
        return cls(name, version, discovery_pb2.Resource(name=name, version=version).SerializeToString())


def type_url_of(content: message.Message) -> str:
    """Returns the type URL of a message."""
    return f"type.googleapis.com/{content.DESCRIPTOR.full_name}"


def serialised(content: message.Message) -> bytes:
    """Returns the one serialisation that equal contents have."""
    return content.SerializeToString(deterministic=True)


def encode_response(
    type_url: TypeUrl, nonce: str, entries: tuple[Entry, ...], removed: tuple[str, ...], *, holds_for: float = 0.0
) -> bytes:
    """Returns a serialised `DeltaDiscoveryResponse`, with the entries' bytes spliced in as they are.

    They hold for so many seconds, or for ever. See `field_of`.
    """
    head = discovery_pb2.DeltaDiscoveryResponse(type_url=type_url.value, nonce=nonce, removed_resources=removed)
    ttl = discovery_pb2.Resource(ttl=duration_pb2.Duration(seconds=round(holds_for))) if holds_for else None
    more = ttl.SerializeToString() if ttl else b""
    return b"".join((head.SerializeToString(), *(field_of(_RESOURCES, entry.wire + more) for entry in entries)))


_RESOURCES = discovery_pb2.DeltaDiscoveryResponse.RESOURCES_FIELD_NUMBER


def field_of(number: int, content: bytes) -> bytes:
    """Returns a field of a message (of a number below 16) whose value is a message that is serialised.

    A protobuf message is the concatenation of its fields, so fields that were serialised apart may be joined
    (protobuf encoding, "Last One Wins" and repeated fields).
    """
    return bytes((number << 3 | 2,)) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
