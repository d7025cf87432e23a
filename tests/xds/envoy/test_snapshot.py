"""What proxies should run, and whom a change touches."""

from __future__ import annotations

from typing import Any

import pytest
from envoy.config.core.v3 import base_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from envoy.extensions.http.early_header_mutation.header_mutation.v3 import header_mutation_pb2
from envoy.service.discovery.v3 import discovery_pb2

from kuma.policy.caller_groups import group
from kuma.resources import codec, kinds
from kuma.resources.models.mesh_transition import Level, MeshTransitionSpec, Position
from kuma.resources.resource import Resource
from kuma.resources.view import MeshView
from kuma.xds.envoy import tls
from kuma.xds.envoy.node import capabilities
from kuma.xds.envoy.node.capabilities import OLDEST, Capabilities
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


def allowing(source: str) -> Resource[Any]:
    return codec.parse({
        "type": "TrafficPermission", "name": "all",
        "sources": [{"match": {"kuma.io/service": source}}], "destinations": [{"match": {"kuma.io/service": "*"}}],
    })  # fmt: skip


def chains(made: MeshConfig) -> dict[str, bytes]:
    """The filter chains of the one inbound of `backend`, by name."""
    (entry,) = made.snapshot("backend", {})[TypeUrl.LISTENER].values()
    wrapped = discovery_pb2.Resource.FromString(entry.wire)
    listener = listener_pb2.Listener.FromString(wrapped.resource.value)
    return {chain.name: chain.SerializeToString(deterministic=True) for chain in listener.filter_chains}


@pytest.mark.parametrize("protocol", ["http", "tcp"])
def test_a_permission_changes_the_filter_chains_of_those_whom_it_concerns(protocol: str) -> None:
    """Envoy ends the connections of a chain that changes, and of no other."""
    before = config(
        MESH,
        ALLOW,
        dataplane("backend", "backend", 82, protocol=protocol),
        dataplane("web", "web", 83, "backend"),
        dataplane("shop", "shop", 84, "backend"),
    )
    old, new = chains(before), chains(config(allowing("web"), previous=before))
    web, shop = (f"mesh_tls_{group((service,))}" for service in ("web", "shop"))
    assert old.keys() == new.keys() == {"mesh_tls", web, shop}
    assert {name for name in old if old[name] != new[name]} == {"mesh_tls", shop}


@pytest.mark.parametrize("protocol", ["http", "tcp"])
def test_between_permissive_and_strict_the_chains_of_callers_of_the_mesh_stay(protocol: str) -> None:
    """Envoy ends the connections of a chain that changes."""
    view = config(
        MESH, ALLOW, dataplane("backend", "backend", 82, protocol=protocol), dataplane("web", "web", 83, "backend")
    ).view
    found = []
    for level in (Level.ENCRYPTING, Level.STRICT):
        at = MeshTransitionSpec(position=Position(level=level))
        made = MeshConfig(view.having(Resource(kinds.MESH_TRANSITION.key("default", "default"), at)))
        found.append(chains(made))
    permissive, strict = found
    web = f"mesh_tls_{group(('web',))}"
    assert permissive.keys() == {"mesh_tls", web, "foreign_tls", "plaintext"}
    assert strict.keys() == {"mesh_tls", web}
    assert permissive[web] == strict[web]


def test_whoever_begins_to_call_a_service_touches_its_proxies() -> None:
    before = config(MESH, ALLOW, dataplane("backend", "backend", 82), dataplane("web", "web", 83, "backend"))
    after = config(dataplane("shop", "shop", 84, "backend"), previous=before)
    assert after.affected_since(before) == {"shop", "backend"}
    assert chains(before).items() < chains(after).items()
    another = config(dataplane("shop-2", "shop", 85, "backend"), previous=after)
    assert another.affected_since(after) == {"shop-2"}, "the group is known"


def test_a_retired_authority_changes_all_filter_chains_and_a_restart_none() -> None:
    before = config(MESH, ALLOW, dataplane("backend", "backend", 82), dataplane("web", "web", 83, "backend"))
    assert before.view.transition is not None
    spec = before.view.transition.spec
    epoch = spec.model_copy(update={"position": spec.position.model_copy(update={"epoch": 1})})
    view = before.view.having(before.view.transition.with_spec(epoch))
    after = MeshConfig(view, before)
    assert after.affected_since(before) == {"backend", "web"}
    assert not chains(before).items() & chains(after).items()
    assert chains(MeshConfig(view)) == chains(after)


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


NEWEST = Capabilities(waits_for_handshake=True, has_internal_listeners=True)
ONLY_WAITS = Capabilities(waits_for_handshake=True)
DENY = codec.parse({
    "type": "MeshTrafficPermission", "name": "not-dev",
    "spec": {"targetRef": {"kind": "Mesh"}, "from": [
        {"targetRef": {"kind": "Mesh"}, "default": {"action": "Allow"}},
        {"targetRef": {"kind": "MeshSubset", "tags": {"env": "dev"}}, "default": {"action": "Deny"}},
    ]},
})  # fmt: skip
TCP = dataplane("backend", "backend", 82, protocol="tcp")


def listeners(found: MeshConfig, envoy: Capabilities, name: str = "backend") -> dict[str, Any]:
    entries = found.snapshot(name, {}, envoy=envoy)[TypeUrl.LISTENER]
    return {
        name: listener_pb2.Listener.FromString(discovery_pb2.Resource.FromString(entry.wire).resource.value)
        for name, entry in entries.items()
    }


def leads_to(chain: Any) -> tcp_proxy_pb2.TcpProxy:
    proxy = tcp_proxy_pb2.TcpProxy()
    assert chain.filters[-1].typed_config.Unpack(proxy)
    return proxy


@pytest.mark.parametrize("envoy", [OLDEST, ONLY_WAITS, NEWEST])
@pytest.mark.parametrize("permission", [ALLOW, DENY], ids=lambda permission: permission.name)
def test_no_envoy_is_sent_what_it_does_not_know(envoy: Capabilities, permission: Resource[Any]) -> None:
    found = listeners(config(MESH, permission, TCP), envoy)
    inbound = found["inbound:127.0.0.1:82"]
    (chain,) = inbound.filter_chains
    waits = leads_to(chain).upstream_connect_mode == tcp_proxy_pb2.ON_DOWNSTREAM_TLS_HANDSHAKE
    assert waits == leads_to(chain).HasField("max_early_data_bytes") == envoy.waits_for_handshake
    assert ("gate:127.0.0.1:82" in found) == envoy.has_gates
    gated = any(part.name == "envoy.filters.network.set_filter_state" for part in chain.filters)
    assert gated == envoy.has_gates
    assert leads_to(chain).cluster == ("gate:127.0.0.1:82" if gated else "localhost:10082")


@pytest.mark.parametrize("envoy", [OLDEST, NEWEST])
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_only_who_knows_patterns_is_sent_some(envoy: Capabilities, protocol: str) -> None:
    found = listeners(config(MESH, ALLOW, dataplane("backend", "backend", 82, protocol=protocol)), envoy)
    (chain,) = found["inbound:127.0.0.1:82"].filter_chains
    manager, dropped = hcm_pb2.HttpConnectionManager(), header_mutation_pb2.HeaderMutation()
    assert chain.filters[-1].typed_config.Unpack(manager)
    assert manager.early_header_mutation_extensions[0].typed_config.Unpack(dropped)
    assert any(one.HasField("remove_on_match") for one in dropped.mutations) == envoy.drops_by_pattern
    of_trailers = any(part.name == "envoy.filters.http.header_mutation" for part in manager.http_filters)
    assert of_trailers == (envoy.drops_by_pattern and protocol == "grpc")


@pytest.mark.parametrize("permission", [ALLOW, DENY], ids=lambda permission: permission.name)
def test_a_gate_knows_the_rules_of_an_inbound_before_callers_are_accepted_by_them(permission: Resource[Any]) -> None:
    """Envoy takes up listeners in the order in which they come; in the other one, calls fail in between."""
    found = tuple(listeners(config(MESH, permission, TCP), NEWEST))
    assert found.index("gate:127.0.0.1:82") < found.index("inbound:127.0.0.1:82")


@pytest.mark.parametrize("envoy", [OLDEST, ONLY_WAITS, NEWEST])
@pytest.mark.parametrize("protocol", ["tcp", "http"])
def test_where_nobody_is_admitted_no_connection_leads_to_the_workload(envoy: Capabilities, protocol: str) -> None:
    """Neither in the clear, on the way to mutual TLS, nor with it."""
    view = MeshView("default").having(MESH).having(dataplane("backend", "backend", 82, protocol=protocol))
    for level in (Level.ACCEPTING, Level.STRICT):
        at = MeshTransitionSpec(position=Position(level=level))
        made = MeshConfig(view.having(Resource(kinds.MESH_TRANSITION.key("default", "default"), at)))
        clusters = made.snapshot("backend", {}, envoy=envoy)[TypeUrl.CLUSTER]
        (inbound,) = listeners(made, envoy).values()
        chains = {chain.name: chain for chain in inbound.filter_chains}
        if protocol == "http":
            del chains["mesh_tls"]  # answers requests with 403
        assert (chains.keys() >= {"foreign_tls", "plaintext"}) == (level is Level.ACCEPTING)
        for chain in chains.values():
            assert leads_to(chain).cluster not in clusters, (level, chain.name)


def test_what_an_envoy_can_do_is_told_from_what_it_says() -> None:
    node = base_pb2.Node()
    assert capabilities.of(node, {}) == OLDEST
    for version, waits in (((1, 29), False), ((1, 36), False), ((1, 37), True), ((1, 40), True), ((2, 0), True)):
        said = node.user_agent_build_version.version
        said.major_number, said.minor_number = version
        assert capabilities.of(node, {}) == Capabilities(waits_for_handshake=waits)
        assert capabilities.of(node, {capabilities.INTERNAL_LISTENERS: True}) == Capabilities(waits, True)
        assert capabilities.of(node, {capabilities.INTERNAL_LISTENERS: "yes"}) == Capabilities(waits, False)


def test_a_proxy_that_got_other_services_does_not_offer_the_group_that_it_was_started_in() -> None:
    """Where others call as that group, it would come to the rules about them, which do not admit it."""
    made = config(MESH, ALLOW, dataplane("web", "shop", 81, "backend"), dataplane("backend", "backend", 82))

    def filters(envoy: Capabilities) -> list[str]:
        (outbound,) = (found for name, found in listeners(made, envoy, "web").items() if name.startswith("outbound"))
        return [found.name.rpartition(".")[2] for found in outbound.filter_chains[0].filters]

    for said, offers in (("", True), (tls.group_alpn(group(["shop"])), True), (tls.group_alpn(group(["web"])), False)):
        node = base_pb2.Node()
        assert ("set_filter_state" in filters(capabilities.of(node, {tls.GROUP_ALPN: said}))) == offers


def test_at_the_port_of_an_outbound_that_leads_to_no_service_nobody_listens() -> None:
    found = codec.parse({
        "type": "Dataplane", "name": "web", "labels": {"kuma.io/workload": "web"},
        "networking": {
            "address": "127.0.0.1", "inbound": [{"port": 80, "servicePort": 81}],
            "outbound": [{"port": 90, "backendRef": {"kind": "MeshExternalService", "name": "payments"}},
                         {"port": 91, "backendRef": {"kind": "MeshService", "name": "db"}}],
        },
    })  # fmt: skip
    made = config(found, dataplane("db", "db", 83))
    assert set(listeners(made, OLDEST, "web")) == {"inbound:127.0.0.1:80", "outbound:127.0.0.1:91"}
