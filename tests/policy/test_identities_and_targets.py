"""Permissions by SPIFFE ID, and for Dataplanes and their inbounds: as their rules say, down to Envoy's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kuma.policy.permissions import Permissions
from kuma.policy.remaining_access import admits
from kuma.resources import codec
from kuma.resources.models import target_ref
from kuma.resources.models.mesh_traffic_permission import MeshTrafficPermissionSpec, SpiffeIdMatch
from kuma.resources.resource import Resource
from kuma.resources.view import MeshView
from kuma.xds.envoy.listeners import rbac
from kuma.xds.envoy.snapshot import MeshConfig
from tests.fakes import envoy_rules
from tests.fakes.examples import examples
from tests.fakes.views import arrived

SERVICES = ("ab", "abc", "a.b", "ab-c")
MATCH = st.builds(
    lambda how, path: {"spiffeID": {"type": how, "value": f"spiffe://{path}"}},
    st.sampled_from(("Exact", "Prefix")),
    st.sampled_from(("m", "m/ab", "m/abc", "m/a", "m/ab/x", "m.x", "mm", "mm/ab", "other/ab")),
)
LISTS = st.dictionaries(
    st.sampled_from(("allow", "deny", "allowWithShadowDeny")), st.lists(MATCH, min_size=1, max_size=2), min_size=1
)
DATAPLANES = st.one_of(
    st.none(),
    st.just({"kind": "Mesh"}),
    st.builds(
        lambda which, section: {"kind": "Dataplane", **which, **section},
        st.sampled_from(
            (
                {},
                {"name": "dp"},
                {"name": "dp-2"},
                {"labels": {"app": "shop"}},
                {"labels": {"app": "shop", "kuma.io/zone": "default"}},
                {"labels": {"kuma.io/origin": "global"}},
                {"labels": {"kuma.io/mesh": "m", "kuma.io/proxy-type": "sidecar", "kuma.io/env": "universal"}},
                {"name": "dp", "namespace": "shop"},
            )
        ),
        st.sampled_from(({}, {"sectionName": "main"}, {"sectionName": "80"}, {"sectionName": "81"})),
    ),
    st.just({"kind": "Mesh", "proxyTypes": ["Gateway"]}),
    st.just({"kind": "Mesh", "proxyTypes": ["Gateway", "Sidecar"]}),
    st.just({"kind": "MeshSubset", "tags": {"kuma.io/zone": "default"}}),
    st.just({"kind": "MeshSubset", "tags": {"kuma.io/zone": "east"}}),
)


def permission(name: str, target: dict[str, Any] | None, *rules: dict[str, Any]) -> Resource[MeshTrafficPermissionSpec]:
    spec = {"rules": [{"default": rule} for rule in rules], **({"targetRef": target} if target else {})}
    return codec.parse({"type": "MeshTrafficPermission", "mesh": "m", "name": name, "spec": spec})


def dataplane(labels: Mapping[str, str], sections: tuple[str, ...] = ("main", "")) -> Resource[Any]:
    inbounds = [
        {"port": 80 + i, "servicePort": 8080, "tags": {"kuma.io/service": "ab"}, **({"name": name} if name else {})}
        for i, name in enumerate(sections)
    ]
    networking = {"address": "10.0.0.1", "inbound": inbounds}
    document = {"type": "Dataplane", "mesh": "m", "name": "dp", "labels": dict(labels), "networking": networking}
    return codec.parse(document)


def is_for(target: dict[str, Any] | None, labels: Mapping[str, str], name: str, port: int) -> bool:
    """As the documentation of references says it, about the Dataplane `dp`."""
    if target is None or target["kind"] == "Mesh":
        return target is None or target.get("proxyTypes") != ["Gateway"]
    if target["kind"] == "MeshSubset":
        return bool(target["tags"] == {"kuma.io/zone": "default"})
    everywhere = {"kuma.io/mesh": "m", "kuma.io/proxy-type": "sidecar", "kuma.io/env": "universal"}
    known = {**everywhere, "kuma.io/zone": "default", "kuma.io/origin": "zone", **labels}
    return (
        target.get("name", "dp") == "dp"
        and target.get("namespace", known.get("k8s.kuma.io/namespace")) == known.get("k8s.kuma.io/namespace")
        and all(known.get(key) == value for key, value in target.get("labels", {}).items())
        and target.get("sectionName", name) in (name, str(port))
    )


def verdict(lists: list[dict[str, Any]], identity: str) -> bool:
    """Any refusal overrides; a prefix means the identity itself, and whatever lies below it."""

    def among(*names: str) -> bool:
        wanted = [m["spiffeID"] for rule in lists for name in names for m in rule.get(name, [])]
        return any(
            identity == w["value"] or (w["type"] == "Prefix" and identity.startswith(w["value"] + "/")) for w in wanted
        )

    return among("allow", "allowWithShadowDeny") and not among("deny")


@examples(500)
@given(
    st.lists(st.tuples(DATAPLANES, st.lists(LISTS, min_size=1, max_size=2)), max_size=3),
    st.sampled_from(({}, {"app": "shop"}, {"app": "shop", "k8s.kuma.io/namespace": "shop"}, {"kuma.io/zone": "east"})),
    st.sampled_from(SERVICES),
)
@example([(None, [{"allow": [{"spiffeID": {"type": "Prefix", "value": "spiffe://m/ab"}}]}])], {}, "abc")
@example([(None, [{"allow": [{"spiffeID": {"type": "Prefix", "value": "spiffe://m"}}]}])], {}, "abc")
def test_what_envoy_lets_in_is_what_the_rules_say(
    some: list[tuple[dict[str, Any] | None, list[dict[str, Any]]]], labels: Mapping[str, str], caller: str
) -> None:
    permissions = [permission(f"p-{index}", target, *rules) for index, (target, rules) in enumerate(some)]
    known, proxy = Permissions.of([], permissions), dataplane(labels)
    identity = f"spiffe://m/{caller}"
    for inbound in proxy.spec.net.inbound:
        looked_at = target_ref.facets(proxy, inbound, known.facets)
        found = known.admission(looked_at)
        assert found == Permissions.of([], permissions).admission(target_ref.facets(proxy, inbound))
        said = [rule for t, rules in some if is_for(t, labels, inbound.name, inbound.port) for rule in rules]
        assert envoy_rules.lets_in(rbac.access("m", found), [identity]) == verdict(said, identity)


@pytest.mark.parametrize(
    ("how", "value", "callers"),
    [
        ("Exact", "spiffe://m/web", {"kuma.io/service": "web"}),
        ("Prefix", "spiffe://m/web", {"kuma.io/service": "web"}),
        ("Prefix", "spiffe://m", {}),
        ("Exact", "spiffe://m", None),
        ("Prefix", "spiffe://m/ns/shop", None),
        ("Prefix", "spiffe://m.local", None),
    ],
)
def test_an_identity_stands_for_the_callers_that_have_it(how: str, value: str, callers: dict[str, str] | None) -> None:
    assert SpiffeIdMatch(type=how, value=value).caller("m") == callers


def admitted(view: MeshView) -> list[str]:
    permissions = Permissions.of(view.permissions.values(), view.mesh_permissions.values())
    return [
        line.partition(": ")[2]
        for line in admits(view, lambda *inbound: permissions.admission(target_ref.facets(*inbound)), "dp")
    ]


def test_who_is_admitted_follows_the_labels_of_a_dataplane_and_the_sections_of_its_inbounds() -> None:
    mesh = {
        "type": "Mesh",
        "name": "m",
        "mtls": {"enabledBackend": "ca", "backends": [{"name": "ca", "type": "builtin"}]},
    }
    view = arrived(MeshView("m").having(codec.parse(mesh)))
    web = {"allow": [{"spiffeID": {"type": "Exact", "value": "spiffe://m/web"}}]}
    shop = {"kind": "Dataplane", "labels": {"app": "shop"}, "sectionName": "main"}
    view = view.having(permission("shop", shop, web)).having(dataplane({"app": "shop"}))
    assert admitted(view) == ["web", "nobody"]
    config = MeshConfig(view)
    relabelled = MeshConfig(view.having(dataplane({"app": "cart"})), config)
    assert admitted(relabelled.view) == ["nobody", "nobody"]
    assert relabelled.affected_since(config) == {"dp"}
    assert relabelled.snapshot("dp", {}) != config.snapshot("dp", {})
    back = MeshConfig(view, relabelled)
    assert back.snapshot("dp", {}) == config.snapshot("dp", {})
