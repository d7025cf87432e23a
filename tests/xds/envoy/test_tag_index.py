"""Who has a tag, among Dataplanes."""

from kuma.xds.envoy.mesh_wide.tag_index import TagIndex
from tests.fakes.control_plane import dataplane

WEB, DB = dataplane("web-01", "web", tags=", region: east"), dataplane("db-01", "db", tags=", region: west")


def test_services_are_found_by_all_of_their_tags() -> None:
    index = TagIndex({one.name: one for one in (WEB, DB)})
    assert index.services([("region", "east")]) == {"web"}
    assert index.services([("region", "east"), ("kuma.io/service", "db")]) == set()
    assert index.services([]) == {"web", "db"}


def test_it_is_made_again_for_other_dataplanes_only() -> None:
    dataplanes = {WEB.name: WEB}
    index = TagIndex(dataplanes)
    assert index.following(dataplanes) is index
    assert index.following({DB.name: DB}).services([("region", "west")]) == {"db"}
