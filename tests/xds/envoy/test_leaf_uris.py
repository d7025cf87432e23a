"""The URIs of leaves are made once for each Dataplane, and again when it or what permissions look at changes."""

from __future__ import annotations

from kuma.xds.envoy.mesh_wide.leaf_uris import LeafUris
from tests.fakes.control_plane import dataplane

NOTHING: frozenset[str] = frozenset()
WEB = dataplane("web-01", "web", tags=", team: a")


def test_they_are_taken_over_from_the_mesh_before_as_long_as_both_are_the_same() -> None:
    before = LeafUris("default", NOTHING, 1)
    first = before.of(WEB)
    after = LeafUris("default", NOTHING, 1, before)
    assert first == ("spiffe://default/web",)
    assert after.of(WEB) is first
    assert after.of(dataplane("web-01", "shop")) == ("spiffe://default/shop",)
    assert after.of(WEB) == first


def test_tags_are_said_when_permissions_look_at_them_and_no_longer() -> None:
    before = LeafUris("default", NOTHING, 1)
    before.of(WEB)
    looked_at = LeafUris("default", frozenset({"team"}), 1, before)
    assert looked_at.of(WEB) == ("spiffe://default/web", "kuma://team/a")
    assert LeafUris("default", NOTHING, 1, looked_at).of(WEB) == ("spiffe://default/web",)


def test_dataplanes_that_have_gone_are_forgotten() -> None:
    before = LeafUris("default", NOTHING, 1)
    first = before.of(WEB)
    for number in range(3):
        before.of(dataplane(f"gone-{number}", "gone"))
    after = LeafUris("default", NOTHING, 1, before)
    assert after.of(WEB) == first
    assert after.of(WEB) is not first
