"""A change is told to weaken a mesh if, and only if, it lets in somebody whom it does not name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import combinations, product
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from kuma.policy import weakening
from kuma.policy.permissions import Permissions
from kuma.resources import codec
from kuma.resources.resource import Resource
from tests.fakes.examples import examples

SERVICE, ENV = "kuma.io/service", "env"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
CALLERS = [
    frozenset(pairs)
    for size in range(1, 4)
    for pairs in combinations(((SERVICE, "a"), (SERVICE, "b"), (SERVICE, "z"), (ENV, "x"), (ENV, "y")), size)
    if any(name == SERVICE for name, _ in pairs)
]
INBOUNDS = [
    {SERVICE: service, **({ENV: env} if env else {})} for service, env in product(("a", "b", "z"), ("", "x", "y", "w"))
]
"""`z` and `w` are named by no selector."""

matches = st.dictionaries(st.just(SERVICE), st.sampled_from(("a", "b", "*")), min_size=1).flatmap(
    lambda match: st.sampled_from(({}, {ENV: "x"}, {ENV: "*"})).map(lambda more: {**match, **more})
)
legacy = st.builds(
    lambda sources, destinations: {"sources": sources, "destinations": destinations},
    st.lists(matches.map(lambda match: {"match": match}), min_size=1, max_size=2),
    st.lists(matches.map(lambda match: {"match": match}), min_size=1, max_size=2),
)
references = st.sampled_from(
    (
        {"kind": "Mesh"},
        {"kind": "MeshSubset", "tags": {ENV: "x"}},
        {"kind": "MeshService", "name": "a"},
        {"kind": "MeshServiceSubset", "name": "b", "tags": {ENV: "x"}},
    )
)
targeting = st.builds(
    lambda target, items: {"spec": {"targetRef": target, "from": items}},
    references,
    st.lists(
        st.builds(
            lambda target, action: {"targetRef": target, "default": {"action": action}},
            references,
            st.sampled_from(("Allow", "Deny", "AllowWithShadowDeny")),
        ),
        min_size=1,
        max_size=3,
    ),
)


def permission(content: Mapping[str, Any], name: str, age: int = 0) -> Resource[Any]:
    kind = "MeshTrafficPermission" if "spec" in content else "TrafficPermission"
    found = codec.parse({"type": kind, "mesh": "default", "name": name, **content})
    return replace(found, creation_time=NOW + timedelta(seconds=age))


def permissions(*some: Resource[Any]) -> Permissions:
    by_kind: dict[str, dict[str, Resource[Any]]] = {"TrafficPermission": {}, "MeshTrafficPermission": {}}
    for each in some:
        by_kind[each.key.kind][each.name] = each
    return Permissions().following(*by_kind.values())


def admitted(some: tuple[Resource[Any], ...], inbound: Mapping[str, str], caller: frozenset[tuple[str, str]]) -> bool:
    by_kind = [[p for p in some if p.key.kind == k] for k in ("TrafficPermission", "MeshTrafficPermission")]
    found = Permissions.of(*by_kind).admission(inbound)
    allowed, refused = ([p for p in ps if set(p.tags) <= caller] for ps in (found.principals, found.denied))
    return bool(allowed) and not refused


def grants(one: Resource[Any] | None) -> set[tuple[frozenset[tuple[str, str]], frozenset[tuple[str, str]]]]:
    """Pairs of what is selected, and of callers that are named and allowed there."""
    if one is None:
        return set()
    if one.key.kind == "TrafficPermission":
        callers = [frozenset((n, v) for n, v in s.match.items() if v != "*") for s in one.spec.sources]
        if frozenset[tuple[str, str]]() in callers:
            callers = []  # everybody is nobody by name
    else:
        items = [item for item in one.spec.from_ if item.default.action == "Allow"]
        callers = [frozenset(item.target_ref.selected.items()) for item in items]
    return {(frozenset(s.items()), c) for s in weakening.selectors(one) for c in callers if c}


def weakened(
    others: tuple[Resource[Any], ...], old: Resource[Any] | None, new: Resource[Any] | None
) -> Iterator[tuple[Mapping[str, str], frozenset[tuple[str, str]]]]:
    """By trying every caller at every inbound."""
    before, after = (*others, *([old] if old else [])), (*others, *([new] if new else []))
    asked_for = grants(new) - grants(old)
    for inbound, caller in product(INBOUNDS, CALLERS):
        if not admitted(before, inbound, caller) and admitted(after, inbound, caller):
            named = (
                wanted <= caller and all(n in inbound and v in ("*", inbound[n]) for n, v in target)
                for target, wanted in asked_for
            )
            if not any(named):
                yield inbound, caller


@examples(300)
@given(
    st.lists(st.one_of(legacy, targeting), max_size=3),
    st.one_of(st.none(), legacy, targeting),
    st.one_of(st.none(), legacy, targeting),
    st.booleans(),
)
def test_a_weakening_is_named_if_somebody_gets_in_who_is_not_named(
    others: list[dict[str, Any]], old: dict[str, Any] | None, new: dict[str, Any] | None, older: bool
) -> None:
    if old is not None and new is not None and ("spec" in old) != ("spec" in new):
        new = None
    some = tuple(permission(content, f"other-{i}", i + 1) for i, content in enumerate(others))
    age = 0 if older else 10
    changed = [permission(content, "changed", age) if content else None for content in (old, new)]
    before, after = (permissions(*some, *([one] if one else [])) for one in changed)
    found = [w for w in weakening.Widening(before, after, *changed).weakenings() if w is not None]
    assert bool(found) == any(True for _ in weakened(some, *changed)), found


ALLOW_ALL = {"sources": [{"match": {SERVICE: "*"}}], "destinations": [{"match": {SERVICE: "*"}}]}
NARROW = {"sources": [{"match": {SERVICE: "web"}}], "destinations": [{"match": {SERVICE: "backend"}}]}
DENY_DEV: dict[str, Any] = {
    "spec": {
        "targetRef": {"kind": "Mesh"},
        "from": [
            {"targetRef": {"kind": "Mesh"}, "default": {"action": "Allow"}},
            {"targetRef": {"kind": "MeshSubset", "tags": {ENV: "dev"}}, "default": {"action": "Deny"}},
        ],
    }
}


def told(*changed: Resource[Any] | None, others: tuple[Resource[Any], ...] = ()) -> list[str]:
    before, after = (permissions(*others, *([one] if one else [])) for one in changed)
    return [w.reason for w in weakening.Widening(before, after, *changed).weakenings() if w is not None]


def test_what_is_told() -> None:
    everybody = permission(ALLOW_ALL, "all")
    assert told(None, everybody) == [
        "all callers with an identity of the mesh are admitted by every inbound, and were not before"
    ]
    assert told(None, permission(NARROW, "narrow")) == [], "they are named"
    assert told(permission(NARROW, "narrow"), None, others=(everybody,)) == [
        "all callers with an identity of the mesh are admitted by inbounds with kuma.io/service=backend, "
        "and were not before"
    ]
    assert told(permission(DENY_DEV, "deny"), None) == []
    allow = {"spec": {**DENY_DEV["spec"], "from": DENY_DEV["spec"]["from"][:1]}}
    assert told(permission(DENY_DEV, "deny"), permission(allow, "deny")) == [
        "callers with env=dev are admitted by every inbound, and were not before"
    ]


def test_who_is_denied_for_a_trial_only_is_not_meant_to_be_admitted() -> None:
    target = {"targetRef": {"kind": "Mesh"}}

    def about_web(action: str) -> Resource[Any]:
        item = {"targetRef": {"kind": "MeshService", "name": "web"}, "default": {"action": action}}
        return permission({"spec": {**target, "from": [item]}}, "web")

    admitted = ["callers with kuma.io/service=web are admitted by every inbound, and were not before"]
    assert told(about_web("Deny"), about_web("AllowWithShadowDeny")) == admitted
    assert told(None, about_web("AllowWithShadowDeny")) == admitted
    assert told(about_web("Allow"), about_web("AllowWithShadowDeny")) == []
    assert told(about_web("Deny"), about_web("Allow")) == [], "the change says so by name"
    assert told(about_web("AllowWithShadowDeny"), about_web("Allow")) == []


def mesh(enabled: str = "ca-1", mode: str = "STRICT", other: str = "STRICT", **labels: str) -> Resource[Any]:
    backends = [{"name": "ca-1", "type": "builtin", "mode": mode}, {"name": "ca-2", "type": "builtin", "mode": other}]
    named = {f"kuma.io/{name}": value for name, value in labels.items()}
    return codec.parse(
        {"type": "Mesh", "name": "default", "labels": named, "mtls": {"enabledBackend": enabled, "backends": backends}}
    )


BARE = codec.parse({"type": "Mesh", "name": "default"})


@pytest.mark.parametrize(
    ("old", "new", "fields"),
    [
        (mesh(), BARE, ["mtls"]),
        (mesh(), mesh(enabled=""), ["mtls.enabledBackend"]),
        (mesh(mode="PERMISSIVE"), mesh(enabled=""), ["mtls.enabledBackend"]),
        (mesh(), mesh(mode="PERMISSIVE"), ["mtls.backends[0].mode"]),
        (mesh(), mesh(enabled="ca-2", other="PERMISSIVE"), ["mtls.backends[1].mode"]),
        (mesh(weakening="refused"), mesh(), ["labels"]),
        (mesh(weakening="refused"), mesh(weakening="allowed"), ["labels"]),
        (mesh(weakening="refused"), BARE, ["labels", "mtls"]),
        (None, BARE, []),
        (BARE, mesh(mode="PERMISSIVE"), []),
        (mesh(mode="PERMISSIVE"), mesh(), []),
        (mesh(), mesh(enabled="ca-2"), []),
        (mesh(), mesh(other="PERMISSIVE"), []),
        (mesh(), mesh(weakening="refused"), []),
    ],
)
def test_what_a_mesh_loses(old: Resource[Any] | None, new: Resource[Any], fields: list[str]) -> None:
    assert [found.field for found in weakening.of_mesh(old, new, guarded=False)] == fields


def scraped(*, openly: bool, enabled: str = "ca-1", lifetime: str = "1h") -> Resource[Any]:
    """A Mesh whose metrics are read by everybody or by mutual TLS, with leaves of this lifetime."""
    backend = {"name": "ca-1", "type": "builtin", "dpCert": {"rotation": {"expiration": lifetime}}}
    metrics = {"name": "p", "type": "prometheus", "conf": {"skipMTLS": openly}}
    return codec.parse(
        {
            "type": "Mesh",
            "name": "default",
            "mtls": {"enabledBackend": enabled, "backends": [backend]},
            "metrics": {"enabledBackend": "p", "backends": [metrics]},
        }
    )


@pytest.mark.parametrize(
    ("old", "new", "fields"),
    [
        (scraped(openly=False), scraped(openly=True), ["metrics"]),
        (scraped(openly=True), scraped(openly=True), []),
        (scraped(openly=True), scraped(openly=False), []),
        (scraped(openly=False), scraped(openly=True, enabled=""), ["mtls.enabledBackend"]),
        (scraped(openly=False, enabled=""), scraped(openly=True), []),
        (
            scraped(openly=True),
            scraped(openly=True, lifetime="2h"),
            ["mtls.backends[0].dpCert.rotation.expiration"],
        ),
        (scraped(openly=True, lifetime="2h"), scraped(openly=True), []),
        (scraped(openly=True), scraped(openly=True, enabled="", lifetime="2h"), ["mtls.enabledBackend"]),
    ],
)
def test_only_what_was_not_so_before_is_told(old: Resource[Any], new: Resource[Any], fields: list[str]) -> None:
    assert [found.field for found in weakening.of_mesh(old, new, guarded=False)] == fields


A, B = {"tags": {"team": "a"}}, {"tags": {"team": "b"}}


@pytest.mark.parametrize(
    ("old", "new", "fields"),
    [
        ({"restrictions": [A]}, {}, ["restrictions"]),
        ({"restrictions": [A]}, {"restrictions": [A, B]}, []),
        ({"requirements": [A]}, {}, ["requirements"]),
        ({"requirements": [A]}, {"requirements": [A, B]}, ["requirements"]),
        ({"requirements": [A, B]}, {"requirements": [A]}, []),
        ({}, {"requirements": [A], "restrictions": [B]}, []),
    ],
)
def test_who_may_be_a_member_that_could_not_be(old: dict[str, Any], new: dict[str, Any], fields: list[str]) -> None:
    before, after = (
        codec.parse({"type": "Mesh", "name": "default", "constraints": {"dataplaneProxy": rules}})
        for rules in (old, new)
    )
    found = [told.field for told in weakening.of_mesh(before, after, guarded=False)]
    assert found == [f"constraints.dataplaneProxy.{field}" for field in fields]


def test_a_guard_of_the_control_plane_is_removed_by_a_label() -> None:
    assert [w.field for w in weakening.of_mesh(mesh(), mesh(weakening="allowed"), guarded=True)] == ["labels"]
    assert list(weakening.of_mesh(mesh(), mesh(weakening="refused"), guarded=True)) == []


def trusting(enabled: str, *own: str) -> Resource[Any]:
    """A Mesh with one authority that is made here, and one of its owner's for each of these Secrets."""
    backends = [{"name": "ca-1", "type": "builtin"}] + [
        {"name": f"own-{number}", "type": "provided", "conf": {"cert": {"secret": name}, "key": {"secret": "key"}}}
        for number, name in enumerate(own)
    ]
    return codec.parse({"type": "Mesh", "name": "default", "mtls": {"enabledBackend": enabled, "backends": backends}})


@pytest.mark.parametrize(
    ("old", "new", "fields"),
    [
        (trusting("ca-1"), trusting("ca-1", "one"), ["mtls.backends[1]"]),
        (trusting("ca-1", "one"), trusting("ca-1", "other"), ["mtls.backends[1]"]),
        (trusting("ca-1", "one"), trusting("ca-1", "one", "two"), ["mtls.backends[2]"]),
        (trusting("ca-1", "one"), trusting("ca-1", "one"), []),
        (trusting("ca-1"), trusting("own-0", "one"), []),
        (trusting("own-0", "one"), trusting("own-0", "other"), []),
    ],
)
def test_an_authority_that_others_have_is_told_unless_it_is_the_one_that_is_enabled(
    old: Resource[Any], new: Resource[Any], fields: list[str]
) -> None:
    foreign = {"own-0", "own-1"}
    assert [found.field for found in weakening.of_mesh(old, new, guarded=False, foreign=foreign)] == fields
    assert list(weakening.of_mesh(old, new, guarded=False)) == [], "what the control plane makes is nobody else's"


def test_tokens_that_are_revoked_no_more_are_told() -> None:
    def told(old: str, new: str) -> list[str]:
        return [found.reason for found in weakening.of_revocations(old, new)]

    assert told("ab", "abc") == []
    assert told("abc", "ac") == ["the token b is revoked no more, and holds until it expires"]
    assert told("abc", "b") == ["the token a (and 1 more) is revoked no more, and holds until it expires"]
    assert told("", "a") == []


def test_what_two_selectors_have_in_common() -> None:
    assert weakening.both({SERVICE: "a"}, {SERVICE: "b"}) is None
    assert weakening.both({SERVICE: "*"}, {SERVICE: "a", ENV: "x"}) == {SERVICE: "a", ENV: "x"}
    assert weakening.both({SERVICE: "a", ENV: "x"}, {ENV: "*"}) == {SERVICE: "a", ENV: "x"}
