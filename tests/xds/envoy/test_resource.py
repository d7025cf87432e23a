"""A resource as it travels is what protobuf would make of it, byte for byte, though it is put together of parts."""

from __future__ import annotations

import hashlib

import pytest
from envoy.config.route.v3 import route_components_pb2, route_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import wrappers_pb2

from kuma.xds.envoy import resource_names, tls
from kuma.xds.envoy.listeners import listener
from kuma.xds.envoy.resource import Entry, serialised, type_url_of


def as_protobuf(name: str, type_url: str, body: bytes) -> bytes:
    version = hashlib.blake2b(body, digest_size=8).hexdigest()
    resource = discovery_pb2.Resource(name=name, version=version)
    resource.resource.type_url = type_url
    resource.resource.value = body
    return bytes(resource.SerializeToString())


@pytest.mark.parametrize("length", [1, 0x7F, 0x80, 0x3FFF, 0x4000, 0x1FFFFF, 0x200000])
def test_a_resource_of_any_length(length: int) -> None:
    body = b"x" * length
    made = Entry.serialised("näme", "type.googleapis.com/a", body)
    assert made.wire == as_protobuf("näme", "type.googleapis.com/a", body)


def test_the_routes_of_a_listener() -> None:
    route = route_components_pb2.Route(match=listener.EVERY_REQUEST)
    route.route.cluster = "c" * 200
    host = route_components_pb2.VirtualHost(name="web", domains=["*"], routes=[route])
    table = route_pb2.RouteConfiguration(name="inbound:10.0.0.1:80", virtual_hosts=[host])
    table.validate_clusters.CopyFrom(wrappers_pb2.BoolValue(value=False))
    made = listener.routes(table.name, "web", serialised(route))
    assert made.wire == as_protobuf(table.name, type_url_of(table), serialised(table))


@pytest.mark.parametrize("size", [1, 127, 128, 700, 20_000])
def test_the_secret_of_a_leaf_has_the_very_key_that_was_given_and_no_copy(size: int) -> None:
    chain, key, name = b"c" * size, b"k" * (size // 2 + 1), resource_names.identity_secret("default")
    made, whole = tls.identity("default", chain, key), Entry.of(name, tls.certificate(name, chain, key))
    assert (made, made.wire) == (whole, whole.wire)
    assert any(part is key for part in made.parts)
    assert any(part is chain for part in made.parts)
