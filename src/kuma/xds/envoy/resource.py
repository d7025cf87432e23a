"""A resource as it travels: serialised once, its bytes shared by every proxy that uses it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache

from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import any_pb2, duration_pb2, message


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


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Entry:
    """One named resource. `version` is a hash of the content."""

    name: str
    version: str
    parts: tuple[bytes, ...] = field(repr=False, compare=False)
    """A serialised `discovery.v3.Resource`, in parts of which others may have some, too."""

    @property
    def wire(self) -> bytes:
        """The parts as one."""
        return b"".join(self.parts)

    @classmethod
    def of(cls, name: str, content: message.Message) -> Entry:
        """Serialise `content`. Equal contents have equal versions."""
        return cls.serialised(name, type_url_of(content), serialised(content))

    @classmethod
    def serialised(cls, name: str, type_url: str, *body: bytes) -> Entry:
        """Takes a content that is serialised, in one part or several. The same bytes have the same version."""
        digest = hashlib.blake2b(digest_size=8)
        for part in body:
            digest.update(part)
        version, size = digest.hexdigest(), sum(map(len, body))
        kind = _type_of(type_url) + head_of(_VALUE, size)
        front = field_of(_VERSION, version.encode()) + head_of(_CONTENT, len(kind) + size) + kind
        parts = front, *body, field_of(_NAME, name.encode())
        return cls(name, version, parts if len(body) > 1 else (b"".join(parts),))

    @classmethod
    def known(cls, name: str, version: str) -> Entry:
        """Returns what names a resource that its receiver has, without the content."""
        return cls(name, version, (discovery_pb2.Resource(name=name, version=version).SerializeToString(),))


_VERSION = discovery_pb2.Resource.VERSION_FIELD_NUMBER
_CONTENT = discovery_pb2.Resource.RESOURCE_FIELD_NUMBER
_NAME = discovery_pb2.Resource.NAME_FIELD_NUMBER
_VALUE = any_pb2.Any.VALUE_FIELD_NUMBER


def any_of(type_url: str, body: bytes) -> bytes:
    """Returns a message that is serialised as an `Any`."""
    return _type_of(type_url) + field_of(_VALUE, body)


@lru_cache(maxsize=100)
def _type_of(type_url: str) -> bytes:
    return any_pb2.Any(type_url=type_url).SerializeToString()


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
    parts = [head.SerializeToString()]
    for entry in entries:
        parts += head_of(_RESOURCES, sum(map(len, entry.parts)) + len(more)), *entry.parts, more
    return b"".join(parts)


_RESOURCES = discovery_pb2.DeltaDiscoveryResponse.RESOURCES_FIELD_NUMBER


def field_of(number: int, content: bytes) -> bytes:
    """Returns a field of a message (of a number below 16) whose value is a message that is serialised.

    A protobuf message is the concatenation of its fields, so fields that were serialised apart may be joined
    (protobuf encoding, "Last One Wins" and repeated fields).
    """
    return head_of(number, len(content)) + content


@lru_cache(maxsize=1000)
def head_of(number: int, length: int) -> bytes:
    """Returns what stands before such a field's content of so many bytes: the same object for the same."""
    return bytes((number << 3 | 2,)) + _varint(length)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
