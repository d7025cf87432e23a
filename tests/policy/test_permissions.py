"""TrafficPermission: who may call, and which permission decides."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from kuma.policy import permissions
from kuma.policy.permissions import NOBODY, Admission, Permission, Principal
from kuma.resources import kinds
from kuma.resources.resource import Resource
from kuma.resources.traffic_permission import Selector, TrafficPermissionSpec

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
    assert permissions.admission(candidates, WEB_V1).permission == winner
    assert permissions.admission(candidates[::-1], WEB_V1).permission == winner


def test_nobody_is_the_answer_without_permissions() -> None:
    assert permissions.admission([], WEB_V1) == NOBODY == Admission("", ())


def test_principals_are_sorted_and_any_caller_swallows_the_rest() -> None:
    many = permission("p", WEB_V1, {"version": "v2", SERVICE: "b"}, {SERVICE: "a", "zone": "*"}, {SERVICE: "a"})
    assert permissions.principals(many) == (
        Principal(((SERVICE, "a"),)),
        Principal(((SERVICE, "b"), ("version", "v2"))),
    )
    anyone = permission("p", WEB_V1, {SERVICE: "a"}, {SERVICE: "*"})
    assert permissions.principals(anyone) == (Principal(),)


def test_leaves_carry_the_tags_that_sources_are_selected_by() -> None:
    chosen = [permission("p", WEB_V1, {SERVICE: "b", "version": "v2", "zone": "*"})]
    assert permissions.selected_source_tags(chosen) == {"version"}
