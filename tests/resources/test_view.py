"""What differs between two pictures of a mesh is known from how one was made from the other."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import FrameType

from kuma.resources import kinds
from kuma.resources.kinds import DATAPLANE
from kuma.resources.models.mesh import MeshSpec
from kuma.resources.resource import Resource
from kuma.resources.view import MeshView, Named, changed_names
from tests.fakes.control_plane import dataplane

MANY = 2000
EMPTY = MeshView("default")
_LIKE_ALL = dataplane("p", "web")
FULL = EMPTY.following(
    {key: replace(_LIKE_ALL, key=key) for key in (DATAPLANE.key(f"p{n}", "default") for n in range(MANY))}
)


def test_what_is_created_changed_and_deleted_differs() -> None:
    new, changed, gone = dataplane("new", "web"), dataplane("p1", "other"), dataplane("p2", "web")
    after = FULL.following({new.key: new, changed.key: changed, gone.key: None})
    assert changed_names(FULL.dataplanes, after.dataplanes) == {"new", "p1", "p2"}
    assert changed_names(after.dataplanes, FULL.dataplanes) == {"new", "p1", "p2"}
    assert after.dataplanes["p1"] is changed
    assert len(after.dataplanes) == MANY


def test_what_is_as_it_was_does_not_differ() -> None:
    again = dataplane("p1", "other")
    after = FULL.having(again).having(FULL.dataplanes["p1"])
    assert changed_names(FULL.dataplanes, after.dataplanes) == frozenset()
    assert FULL.having(FULL.dataplanes["p1"]) is FULL


def test_differences_are_known_over_several_steps_and_found_over_many() -> None:
    for steps in (3, 30):
        views = [FULL]
        for number in range(steps):
            views.append(views[-1].having(dataplane(f"p{number}", "other")))
        expected = {f"p{number}" for number in range(steps)}
        assert changed_names(FULL.dataplanes, views[-1].dataplanes) == expected
        del views[1:-1]
        other = views[-1].having(dataplane("new", "web"))
        assert changed_names(FULL.dataplanes, other.dataplanes) == {*expected, "new"}


def test_a_step_that_nobody_holds_any_more_is_not_followed() -> None:
    after = FULL.having(dataplane("p1", "other")).having(dataplane("p2", "other"))
    assert isinstance(after.dataplanes, Named)
    assert after.dataplanes.edited_since(FULL.dataplanes) is None
    assert changed_names(FULL.dataplanes, after.dataplanes) == {"p1", "p2"}


def test_another_mesh_resource_leaves_the_dataplanes_the_very_same() -> None:
    mesh = Resource(kinds.MESH.key("default"), MeshSpec())
    assert FULL.having(mesh).dataplanes is FULL.dataplanes


def test_one_of_many_is_found_without_a_look_at_the_others() -> None:
    after, calls = FULL.having(dataplane("p1", "other")), 0

    def count(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in {"call", "c_call"}

    sys.setprofile(count)
    try:
        found = changed_names(FULL.dataplanes, after.dataplanes)
    finally:
        sys.setprofile(None)
    assert found == {"p1"}
    assert calls < MANY // 100
