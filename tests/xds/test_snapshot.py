"""What proxies should run, and whom a change touches."""

from __future__ import annotations

from typing import Any

from kuma.resources import codec
from kuma.resources.resource import Resource
from kuma.resources.view import MeshView
from kuma.xds.envoy.resource import TypeUrl
from kuma.xds.envoy.snapshot import MeshConfig
from tests.fakes.views import arrived


def dataplane(name: str, service: str, port: int, *calls: str, protocol: str = "http") -> Resource[Any]:
    return codec.parse({
        "type": "Dataplane", "name": name,
        "networking": {
            "address": "127.0.0.1",
            "inbound": [{"port": port, "servicePort": port + 10000,
                         "tags": {"kuma.io/service": service, "kuma.io/protocol": protocol}}],
            "outbound": [{"port": 20000 + i, "tags": {"kuma.io/service": s}} for i, s in enumerate(calls)],
        },
    })  # fmt: skip


MTLS = {"enabledBackend": "ca-1", "backends": [{"name": "ca-1", "type": "builtin"}]}
MESH = codec.parse({"type": "Mesh", "name": "default", "mtls": MTLS})
ALLOW = codec.parse({
    "type": "TrafficPermission", "name": "all",
    "sources": [{"match": {"kuma.io/service": "*"}}], "destinations": [{"match": {"kuma.io/service": "*"}}],
})  # fmt: skip


def config(*resources: Resource[Any], previous: MeshConfig | None = None) -> MeshConfig:
    view = previous.view if previous else MeshView("default")
    for resource in resources:
        view = view.having(resource)
        if resource.key.kind == "Mesh":
            view = arrived(view)
    return MeshConfig(view, previous)


def test_a_new_endpoint_touches_the_callers_of_its_service_only() -> None:
    before = config(
        dataplane("web", "web", 81, "backend"), dataplane("backend", "backend", 82), dataplane("db", "db", 83)
    )
    after = config(dataplane("backend-2", "backend", 84), previous=before)
    assert after.affected_since(before) == {"web", "backend-2"}
    old, new = before.snapshot("web", {}), after.snapshot("web", {})
    changed = {t for t in TypeUrl if old[t] != new[t]}
    assert changed == {TypeUrl.ENDPOINTS}


def test_a_permission_changes_the_routes_of_an_http_inbound_and_not_its_listener() -> None:
    before = config(MESH, dataplane("backend", "backend", 82))
    after = config(ALLOW, previous=before)
    old, new = before.snapshot("backend", {}), after.snapshot("backend", {})
    assert {t for t in TypeUrl if old[t] != new[t]} == {TypeUrl.ROUTES}


def test_a_permission_changes_the_listener_of_a_tcp_inbound() -> None:
    before = config(MESH, dataplane("backend", "backend", 82, protocol="tcp"))
    after = config(ALLOW, previous=before)
    old, new = before.snapshot("backend", {}), after.snapshot("backend", {})
    assert {t for t in TypeUrl if old[t] != new[t]} == {TypeUrl.LISTENER}


def test_what_is_equal_for_many_is_the_same_object() -> None:
    made = config(
        MESH, dataplane("a", "a", 81, "backend"), dataplane("b", "b", 82, "backend"), dataplane("c", "backend", 83)
    )
    first, second = (made.snapshot(name, {})[TypeUrl.CLUSTER]["backend"] for name in "ab")
    assert first is second


def test_a_proxy_that_is_not_stored_runs_nothing() -> None:
    assert config(MESH).snapshot("ghost", {}) == {}
