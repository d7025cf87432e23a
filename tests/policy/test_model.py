"""The permission matcher against a slow and obvious model, written from the rules."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from kuma.policy import authorization
from kuma.policy.authorization import Admission, MeshPermission, Permission, Principal
from kuma.policy.permissions import Permissions
from kuma.resources import codec, kinds
from kuma.resources.models.target_ref import TargetRef
from kuma.resources.models.traffic_permission import Selector, TrafficPermissionSpec
from kuma.resources.resource import Resource
from tests.fakes.examples import examples

TAGS = st.dictionaries(st.sampled_from(["kuma.io/service", "version", "env"]), st.sampled_from("ab"), min_size=1)
MATCHES = st.dictionaries(
    st.sampled_from(["kuma.io/service", "version", "env"]), st.sampled_from(["a", "b", "*"]), min_size=1
)
START = datetime(2026, 1, 1, tzinfo=UTC)


@st.composite
def some_permissions(draw: st.DrawFn) -> list[Permission]:
    names = draw(st.lists(st.sampled_from("pqrstu"), unique=True))
    return [
        Resource(
            kinds.TRAFFIC_PERMISSION.key(name, "default"),
            TrafficPermissionSpec(
                sources=tuple(Selector(match=m) for m in draw(st.lists(MATCHES, min_size=1, max_size=2))),
                destinations=tuple(Selector(match=m) for m in draw(st.lists(MATCHES, min_size=1, max_size=3))),
            ),
            creation_time=START + timedelta(hours=draw(st.integers(0, 2))),
        )
        for name in names
    ]


def winner(candidates: list[Permission], tags: dict[str, str]) -> str:
    """Most tags in the destination, then most exact values, then the latest, then the first by name."""
    best = ""
    best_order: tuple[int, int, datetime] | None = None
    for permission in sorted(candidates, key=lambda p: p.name):
        for destination in permission.spec.destinations:
            if all(k in tags and v in ("*", tags[k]) for k, v in destination.match.items()):
                exact = len([v for v in destination.match.values() if v != "*"])
                order = (len(destination.match), exact, permission.creation_time)
                if best_order is None or order > best_order:
                    best, best_order = permission.name, order
    return best


@examples(500)
@given(some_permissions(), TAGS)
def test_the_winner_is_the_models(candidates: list[Permission], tags: dict[str, str]) -> None:
    assert Permissions.of(candidates, []).admission(tags).permission == winner(candidates, tags)


CALLERS = st.dictionaries(st.sampled_from(["kuma.io/service", "version", "env"]), st.sampled_from("abc"), min_size=1)
ACTION = st.sampled_from(["Allow", "Deny", "AllowWithShadowDeny"])
REFERENCE = st.one_of(
    st.just({"kind": "Mesh"}),
    st.builds(lambda tags: {"kind": "MeshSubset", "tags": tags}, TAGS),
    st.builds(lambda name: {"kind": "MeshService", "name": name}, st.sampled_from("ab")),
    st.builds(
        lambda name, value: {"kind": "MeshServiceSubset", "name": name, "tags": {"version": value}},
        st.sampled_from("ab"),
        st.sampled_from("ab"),
    ),
)
ITEM = st.builds(lambda ref, action: {"targetRef": ref, "default": {"action": action}}, REFERENCE, ACTION)


@st.composite
def some_mesh_permissions(draw: st.DrawFn) -> list[MeshPermission]:
    names = draw(st.lists(st.sampled_from("xyz"), unique=True))
    return [
        codec.parse(
            {
                "type": "MeshTrafficPermission", "mesh": "default", "name": name,
                "labels": draw(st.sampled_from([{}, {"kuma.io/effect": "shadow"}, {"kuma.io/effect": "real"}])),
                "spec": {"targetRef": draw(REFERENCE), "from": draw(st.lists(ITEM, min_size=1, max_size=3))},
            }
        )
        for name in names
    ]  # fmt: skip


def selects(reference: TargetRef | None, tags: dict[str, str]) -> bool:
    if reference is None:
        return True
    if reference.kind in ("MeshService", "MeshServiceSubset") and tags.get("kuma.io/service") != reference.name:
        return False
    if reference.kind in ("MeshSubset", "MeshServiceSubset"):
        return all(tags.get(name) == value for name, value in reference.tags.items())
    return True


def verdict(
    legacy: list[Permission], mesh: list[MeshPermission], inbound: dict[str, str], caller: dict[str, str]
) -> tuple[bool, bool]:
    """Whether a caller is admitted, and whether its being so is counted as what a refusal would hit."""
    deciding = [p for p in mesh if p.labels.get("kuma.io/effect") != "shadow" and selects(p.spec.target_ref, inbound)]
    if deciding:
        items = [item for p in deciding for item in p.spec.from_ if selects(item.target_ref, caller)]
        actions = {item.default.action for item in items}
        admitted = bool(actions) and "Deny" not in actions
        return admitted, admitted and "AllowWithShadowDeny" in actions
    name = winner(legacy, inbound)
    sources = [source.match for p in legacy if p.name == name for source in p.spec.sources]
    # `*` stands for any caller: not even the tag has to be there, as in the original.
    return any(all(v in ("*", caller.get(k)) for k, v in source.items()) for source in sources), False


def answer(admission: Admission, caller: dict[str, str]) -> tuple[bool, bool]:
    """As Envoy evaluates it: a principal is whoever carries all of its tags."""

    def among(principals: Iterable[Principal]) -> bool:
        return any(set(principal.tags) <= set(caller.items()) for principal in principals)

    admitted = among(admission.principals) and not among(admission.denied)
    return admitted, admitted and among(admission.shadowed)


@examples(1000)
@given(some_permissions(), some_mesh_permissions(), TAGS, CALLERS)
def test_who_is_admitted_is_as_the_model_says(
    legacy: list[Permission], mesh: list[MeshPermission], inbound: dict[str, str], caller: dict[str, str]
) -> None:
    found = Permissions.of(legacy, mesh).admission(inbound)
    assert answer(found, caller) == verdict(legacy, mesh, inbound, caller)
    assert found == Permissions.of(legacy[::-1], mesh[::-1]).admission(inbound)
    # What callers are told apart by is in their certificates.
    needed = {name for p in (*found.principals, *found.denied, *found.shadowed) for name, _ in p.tags}
    assert needed - {"kuma.io/service"} <= authorization.selected_source_tags(legacy, mesh)


@examples(500)
@given(st.lists(st.tuples(some_permissions(), some_mesh_permissions()), min_size=1, max_size=4), TAGS)
def test_permissions_that_follow_each_other_say_what_they_say_from_scratch(
    changes: list[tuple[list[Permission], list[MeshPermission]]], inbound: dict[str, str]
) -> None:
    found = Permissions()
    for legacy, mesh in changes:
        found = found.following({p.name: p for p in legacy}, {p.name: p for p in mesh})
        fresh = Permissions().following(found.legacy, found.mesh)
        assert found.admission(inbound) == Permissions.of(legacy, mesh).admission(inbound)
        assert found.source_tags == authorization.selected_source_tags(legacy, mesh)
        assert (found.callers, found.broad) == (fresh.callers, fresh.broad)
