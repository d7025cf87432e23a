"""What many proxies share is one object that nobody can change, and no proxy gets what is another's."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from kuma.resources import codec
from kuma.resources.models.dataplane import admin_port
from kuma.resources.models.mesh import MeshSpec
from kuma.resources.resource import Resource
from kuma.resources.view import MeshView
from kuma.xds.envoy import resource_names
from kuma.xds.envoy.resource import Entry, TypeUrl
from kuma.xds.envoy.snapshot import MeshConfig
from tests.fakes.control_plane import ALLOW_ALL, MTLS, resource
from tests.fakes.views import arrived

NAMES = ("a", "b", "c")


def dataplane(name: str, **networking: Any) -> Resource[Any]:
    tags = {"kuma.io/service": "callers", "kuma.io/protocol": "http"}
    return codec.parse({
        "type": "Dataplane", "name": name,
        "networking": {
            "address": "10.0.0.1", "inbound": [{"port": 80, "servicePort": 8080, "tags": tags}],
            "outbound": [{"port": 20000, "tags": {"kuma.io/service": "backend"}}], **networking,
        },
    })  # fmt: skip


def config(*resources: Resource[Any]) -> MeshConfig:
    view = MeshView("default")
    for found in (resource(MTLS), resource(ALLOW_ALL), *resources):
        view = view.having(found)
    return MeshConfig(arrived(view))


def contents(made: MeshConfig, name: str) -> dict[tuple[TypeUrl, str], Entry]:
    snapshot = made.snapshot(name, {}, admin_port(made.view.dataplanes[name].spec.net))
    return {(type_url, entry.name): entry for type_url, entries in snapshot.items() for entry in entries.values()}


def test_proxies_that_are_alike_are_given_the_very_same_objects() -> None:
    made = config(*(dataplane(name) for name in NAMES))
    first, *others = [contents(made, name) for name in NAMES]
    assert {type_url for type_url, _ in first} == {*TypeUrl} - {TypeUrl.SECRET}
    for other in others:
        assert other.keys() == first.keys()
        own = {key for key, entry in other.items() if entry is not first[key]}
        assert not own, "made twice"


def test_generating_for_one_proxy_leaves_nothing_behind_for_another() -> None:
    """However often and in whatever order, each gets its own administration and nothing of anybody else's."""
    admins = {name: 9000 + number for number, name in enumerate(NAMES)}
    made = config(*(dataplane(name, admin={"port": port}) for name, port in admins.items()))
    first = {name: contents(made, name) for name in NAMES}
    for name in (*NAMES, *reversed(NAMES)):
        assert contents(made, name) == first[name]
        admin = first[name][TypeUrl.CLUSTER, resource_names.ADMIN].wire
        ports = {other for other, port in admins.items() if (b"\x18" + _varint(port)) in admin}
        assert ports == {name}


def test_a_snapshot_is_its_proxys_own() -> None:
    made = config(*(dataplane(name) for name in NAMES))
    before = contents(made, "b")
    spoilt: Any = made.snapshot("a", {})
    for entries in spoilt.values():
        entries.clear()
    assert contents(made, "b") == contents(made, "a") == before


def test_what_is_shared_cannot_be_changed() -> None:
    made = config(dataplane("a"))
    view: Any = made.view
    entry: Any = next(iter(contents(made, "a").values()))
    with pytest.raises(dataclasses.FrozenInstanceError):
        entry.parts = ()
    with pytest.raises(dataclasses.FrozenInstanceError):
        view.mesh = None
    for mapping in (view.dataplanes, view.permissions, view.secrets, view.mesh_permissions):
        with pytest.raises(TypeError, match="does not support item assignment"):
            mapping["x"] = None
    spec: Any = view.dataplanes["a"].spec
    mesh: MeshSpec = view.mesh.spec
    for model, name in ((spec, "networking"), (mesh, "mtls"), (mesh.mtls, "backends")):
        with pytest.raises(ValueError, match="frozen"):
            setattr(model, name, None)
    assert isinstance(spec.net.inbound, tuple)


def _varint(number: int) -> bytes:
    return bytes([number & 0x7F | 0x80, number >> 7])
