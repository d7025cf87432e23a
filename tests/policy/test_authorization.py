"""TrafficPermission: who may call, and which permission decides."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kuma.base.errors import InvalidResource
from kuma.policy import authorization
from kuma.policy.authorization import NOBODY, Admission, MeshPermission, Permission, Principal
from kuma.policy.permissions import Permissions
from kuma.resources import codec, kinds
from kuma.resources.models.traffic_permission import Selector, TrafficPermissionSpec
from kuma.resources.resource import Resource

SERVICE = "kuma.io/service"
START = datetime(2026, 1, 1, tzinfo=UTC)


def permission(name: str, destination: dict[str, str], *sources: dict[str, str], age: int = 0) -> Permission:
    spec = TrafficPermissionSpec(
        sources=tuple(Selector(match=source) for source in sources or ({SERVICE: name},)),
        destinations=(Selector(match=destination),),
    )
    return Resource(kinds.TRAFFIC_PERMISSION.key(name, "default"), spec, creation_time=START - timedelta(hours=age))


WEB_V1 = {SERVICE: "web", "version": "v1"}


@pytest.mark.parametrize(
    ("candidates", "winner"),
    [
        pytest.param([], "", id="no permission admits nobody"),
        pytest.param([permission("a", {SERVICE: "db"})], "", id="none that selects it"),
        pytest.param([permission("a", {SERVICE: "*"})], "a", id="any service"),
        pytest.param([permission("a", {SERVICE: "*"}), permission("b", {SERVICE: "web"})], "b", id="exact before any"),
        pytest.param(
            [permission("b", {SERVICE: "web"}), permission("c", {SERVICE: "*", "version": "v1"})], "c",
            id="more tags before more exact ones",
        ),
        pytest.param(
            [permission("a", {SERVICE: "web"}, age=2), permission("b", {SERVICE: "web"}, age=1)], "b",
            id="the later one",
        ),
        pytest.param([permission("b", {SERVICE: "web"}), permission("a", {SERVICE: "web"})], "a", id="first by name"),
        pytest.param([permission("a", {SERVICE: "web", "zone": "*"})], "", id="a tag that the inbound lacks"),
    ],
)  # fmt: skip
def test_one_permission_decides(candidates: list[Permission], winner: str) -> None:
    assert Permissions.of(candidates, []).admission(WEB_V1).permission == winner
    assert Permissions.of(candidates[::-1], []).admission(WEB_V1).permission == winner


def test_nobody_is_the_answer_without_permissions() -> None:
    assert Permissions.of([], []).admission(WEB_V1) == NOBODY == Admission("", ())


def test_principals_are_sorted_and_any_caller_swallows_the_rest() -> None:
    many = permission("p", WEB_V1, {"version": "v2", SERVICE: "b"}, {SERVICE: "a", "zone": "*"}, {SERVICE: "a"})
    assert authorization.principals(many) == (
        Principal(((SERVICE, "a"),)),
        Principal(((SERVICE, "b"), ("version", "v2"))),
    )
    names = ("lots", "of", "callers", "more", "than", "come", "in", "order", "by", "chance")
    callers = permission("p", WEB_V1, *({SERVICE: name} for name in names))
    assert authorization.principals(callers) == tuple(Principal(((SERVICE, name),)) for name in sorted(names))
    anyone = permission("p", WEB_V1, {SERVICE: "a"}, {SERVICE: "*"})
    assert authorization.principals(anyone) == (Principal(),)


def test_leaves_carry_the_tags_that_sources_are_selected_by() -> None:
    chosen = [permission("p", WEB_V1, {SERVICE: "b", "version": "v2", "zone": "*"})]
    assert authorization.selected_source_tags(chosen, []) == {"version"}


def mesh_permission(
    name: str, target: dict[str, Any], *items: tuple[str, dict[str, Any]], labels: dict[str, str] | None = None
) -> MeshPermission:
    spec = {"targetRef": target, "from": [{"targetRef": ref, "default": {"action": action}} for action, ref in items]}
    document = {
        "type": "MeshTrafficPermission", "mesh": "default", "name": name, "labels": labels or {}, "spec": spec,
    }  # fmt: skip
    return codec.parse(document)


MESH = {"kind": "Mesh"}


def subset(**tags: str) -> dict[str, Any]:
    return {"kind": "MeshSubset", "tags": tags}


@pytest.mark.parametrize(
    ("target", "decides"),
    [
        (MESH, True),
        (subset(version="v1"), True),
        (subset(version="v2"), False),
        ({"kind": "MeshService", "name": "web"}, True),
        ({"kind": "MeshService", "name": "db"}, False),
        ({"kind": "MeshServiceSubset", "name": "web", "tags": {"version": "v1"}}, True),
        ({"kind": "MeshServiceSubset", "name": "web", "tags": {"version": "v2"}}, False),
    ],
)
def test_a_mesh_permission_takes_over_the_inbounds_that_it_targets(target: dict[str, Any], decides: bool) -> None:
    old = permission("old", {SERVICE: "web"}, {SERVICE: "a"})
    new = mesh_permission("new", target, ("Allow", {"kind": "MeshService", "name": "b"}))
    found = Permissions.of([old], [new]).admission(WEB_V1)
    assert found.principals == (Principal(((SERVICE, "b" if decides else "a"),)),)


def test_a_mesh_permission_in_shadow_configures_nothing() -> None:
    old = permission("old", {SERVICE: "web"}, {SERVICE: "a"})
    item = ("Deny", subset(env="dev"))
    shadow = mesh_permission("new", MESH, item, labels={"kuma.io/effect": "shadow"})
    assert Permissions.of([old], [shadow]).admission(WEB_V1).permission == "old"
    assert authorization.selected_source_tags([], [shadow]) == frozenset()
    real = mesh_permission("new", MESH, item, labels={"kuma.io/effect": "other"})
    assert Permissions.of([old], [real]).admission(WEB_V1).permission == "MeshTrafficPermission"


def test_what_mesh_permissions_say_is_in_one_order_whoever_says_it_first() -> None:
    """Equal permissions make equal rules, after a restart too: connections are not drained for another order."""
    names = ("lots", "of", "callers", "more", "than", "come", "in", "order", "by", "chance")
    for action in ("Allow", "Deny", "AllowWithShadowDeny"):
        items = [(action, {"kind": "MeshService", "name": name}) for name in names]
        found = Permissions.of([], [mesh_permission("a", MESH, *items)]).admission(WEB_V1)
        for principals in (found.principals, found.denied, found.shadowed):
            assert principals in ((), tuple(Principal(((SERVICE, name),)) for name in sorted(names)))


def test_a_refusal_overrides_whoever_says_it() -> None:
    everybody = mesh_permission("a", {"kind": "MeshService", "name": "web"}, ("Allow", MESH))
    not_dev = mesh_permission("b", MESH, ("Deny", subset(env="dev")), ("AllowWithShadowDeny", subset(env="test")))
    found = Permissions.of([], [everybody, not_dev]).admission(WEB_V1)
    assert found == Permissions.of([], [not_dev, everybody]).admission(WEB_V1)
    assert Principal() in found.principals
    assert found.denied == (Principal((("env", "dev"),)),)
    assert found.shadowed == (Principal((("env", "test"),)),)
    assert authorization.selected_source_tags([], [everybody, not_dev]) == {"env"}


def wrong_identity(name: str, how: str, value: str, field: str, reason: str) -> tuple[dict[str, Any], str, str]:
    spec = {"rules": [{"default": {name: [{"spiffeID": {"type": how, "value": value}}]}}]}
    return spec, f"spec.rules[0].{name}[0].spiffeID{field}", reason


@pytest.mark.parametrize(
    ("spec", "field", "reason"),
    [
        ({"targetRef": MESH}, "spec", "at least one of 'from' or 'rules' has to be defined"),
        ({"targetRef": MESH, "from": [], "rules": []}, "spec", "at least one of 'from' or 'rules' has to be defined"),
        (
            {"from": [{"targetRef": MESH}], "rules": [{}]},
            "spec",
            "field 'from' must be empty when 'rules' is defined",
        ),
        ({"targetRef": {}, "from": []}, "spec.targetRef.kind", "must be defined"),
        ({"targetRef": {"kind": "MeshGateway"}}, "spec.targetRef.kind", "value is not supported"),
        ({"targetRef": {"kind": "MeshService"}}, "spec.targetRef.name", "must be set with kind MeshService"),
        (
            {"targetRef": {"kind": "Mesh", "name": "x"}},
            "spec.targetRef.name",
            "using name with kind Mesh is not yet supported",
        ),
        (
            {"targetRef": {"kind": "MeshSubset", "name": "x"}},
            "spec.targetRef.name",
            "must not be set with kind MeshSubset",
        ),
        (
            {"targetRef": {"kind": "MeshServiceSubset", "name": "x", "tags": {SERVICE: "y"}}},
            'spec.targetRef.tags["kuma.io/service"]',
            "must not be set with kind MeshServiceSubset",
        ),
        ({"targetRef": {"kind": "Mesh", "tags": {"a": "b"}}}, "spec.targetRef.tags", "must not be set with kind Mesh"),
        ({"targetRef": MESH, "from": [{"targetRef": MESH}]}, "spec.from[0].default.action", "must be defined"),
        (
            {"targetRef": MESH, "from": [{"targetRef": MESH, "default": {"action": "ALLOW"}}]},
            "spec.from[0].default.action",
            "has to be one of Allow, Deny, AllowWithShadowDeny",
        ),
        ({"targetRef": MESH, "to": []}, "spec.to", "unknown field"),
        (
            {"targetRef": {"kind": "Dataplane", "name": "x", "labels": {"a": "b"}}},
            "spec.targetRef.labels",
            "either labels or name and namespace must be specified",
        ),
        (
            {"targetRef": {"kind": "Dataplane", "tags": {"a": "b"}}},
            "spec.targetRef.tags",
            "must not be set with kind Dataplane",
        ),
        (
            {"targetRef": {"kind": "Dataplane", "labels": {"a b": "c"}}},
            'spec.targetRef.labels["a b"]',
            "the name part of a label key",
        ),
        ({"targetRef": {"kind": "Mesh", "labels": {"a": "b"}}}, "spec.targetRef.labels", "must not be set with kind"),
        (
            {"targetRef": {"kind": "MeshService", "name": "a", "sectionName": "b"}},
            "spec.targetRef.sectionName",
            "must not be set with kind MeshService",
        ),
        (
            {"from": [{"targetRef": {"kind": "Dataplane"}, "default": {"action": "Allow"}}]},
            "spec.from[0].targetRef.kind",
            "value is not supported",
        ),
        (
            {"rules": [{"default": {"deny": []}}]},
            "spec.rules[0]",
            "at least one of 'allow', 'allowWithShadowDeny', 'deny' has to be defined",
        ),
        ({"rules": [{"default": {"allow": [{}]}}]}, "spec.rules[0].allow[0].spiffeID", "must be defined"),
        wrong_identity("allow", "Like", "spiffe://m/a", ".type", "has to be one of Exact, Prefix"),
        wrong_identity("deny", "Exact", "", "", "must be a valid Spiffe ID: cannot be empty"),
        wrong_identity("deny", "Exact", "kuma://m/a", "", "scheme is missing or invalid"),
        wrong_identity("allow", "Prefix", "spiffe://", "", "trust domain is missing"),
        wrong_identity("allow", "Prefix", "spiffe://M/a", "", "trust domain characters are limited to"),
        wrong_identity("allow", "Prefix", "spiffe://m/a/", "", "path cannot have a trailing slash; a prefix ends at"),
        wrong_identity("allow", "Prefix", "spiffe://m//a", "", "path cannot contain empty segments"),
        wrong_identity("allow", "Exact", "spiffe://m/../a", "", "path cannot contain dot segments"),
        wrong_identity("allowWithShadowDeny", "Exact", "spiffe://m/a*", "", "path segment characters are limited to"),
    ],
)
def test_what_is_wrong_with_a_mesh_permission(spec: dict[str, Any], field: str, reason: str) -> None:
    for document in (
        {"type": "MeshTrafficPermission", "mesh": "default", "name": "p", "spec": spec},
        {"apiVersion": "kuma.io/v1alpha1", "kind": "MeshTrafficPermission", "metadata": {"name": "p"}, "spec": spec},
    ):
        with pytest.raises(InvalidResource) as caught:
            codec.parse(document)
        assert any(v.field == field and reason in v.reason for v in caught.value.violations)


def test_what_a_mesh_permission_says_stands_under_spec() -> None:
    document = codec.to_universal(mesh_permission("p", MESH, ("Allow", MESH)))
    assert document["spec"] == {"targetRef": MESH, "from": [{"targetRef": MESH, "default": {"action": "Allow"}}]}
    with pytest.raises(InvalidResource, match="targetRef: unknown field; what the resource says stands under spec"):
        codec.parse({"type": "MeshTrafficPermission", "mesh": "default", "name": "p", "targetRef": MESH})


def test_callers_are_the_same_in_whatever_order_their_tags_are_written() -> None:
    one, other = (
        mesh_permission("p", MESH, ("Allow", subset(**dict(tags))))
        for tags in ([("team", "a"), ("env", "prod")], [("env", "prod"), ("team", "a")])
    )
    assert list(authorization.statements(one)) == list(authorization.statements(other))
