"""What is generated for a mesh is kept as long as it is in use, however large the mesh is, and no longer."""

from dataclasses import replace
from typing import Any

import pytest

from kuma.resources.resource import Resource
from kuma.resources.view import MeshView
from kuma.xds.envoy.generated import Generated
from kuma.xds.envoy.resource import Entry, TypeUrl
from kuma.xds.envoy.services import clusters
from kuma.xds.envoy.snapshot import MeshConfig
from tests.fakes.control_plane import ALLOW_ALL, MTLS, dataplane, resource
from tests.fakes.views import arrived


def numbered(number: int) -> Entry:
    return Entry.of(f"n-{number}", clusters.socket("10.0.0.1", number))


@pytest.mark.parametrize("in_use", [1, 7, 20_000])
def test_all_that_is_in_use_stays_however_much_it_is(in_use: int) -> None:
    generated = Generated()
    first = [generated.entry(numbered, number) for number in range(in_use)]
    for _ in range(2):
        assert all(generated.entry(numbered, number) is first[number] for number in range(in_use))


def test_what_is_in_use_no_more_goes(in_use: int = 50) -> None:
    generated = Generated()
    used = [generated.entry(numbered, number) for number in range(in_use)]
    for number in range(in_use, 10 * in_use):
        generated.entry(numbered, number)
        assert len(generated) <= in_use + 1
    assert all(generated.entry(numbered, number) is used[number] for number in range(in_use)), "what is used stays"


def test_the_entries_of_a_mesh_are_the_same_after_another_proxy_has_changed_many_times() -> None:
    web, shop = dataplane("web-01", "web", calls=("web",)), dataplane("shop-01", "shop", port=81)
    config = MeshConfig(MeshView("default").having(web).having(shop))
    first = config.snapshot("web-01", {})
    for version in range(2, 200):
        changed = replace(dataplane("shop-01", f"shop-{version}", port=80 + version), version=version)
        config = MeshConfig(config.view.having(changed), config)
        config.snapshot("shop-01", {})
        again = config.snapshot("web-01", {})
        for type_url in (TypeUrl.LISTENER, TypeUrl.ROUTES, TypeUrl.CLUSTER):
            assert all(again[type_url][name] is entry for name, entry in first[type_url].items()), version


def test_tags_that_nobody_has_any_more_are_forgotten() -> None:
    config = MeshConfig(MeshView("default"))
    for version in range(1, 100):
        calls = dataplane("web-01", f"web-{version}", calls=(f"shop-{version}",))
        config = MeshConfig(config.view.having(replace(calls, version=version)), config)
        config.snapshot("web-01", {})
    services = len(config._services)
    held = services + len(config.permissions._known) + len(config._generated) + len(config.admissions._kinds)
    assert held <= 2 * 5 * 2 + 2 + 2


def test_of_a_dataplane_that_is_gone_nothing_is_kept() -> None:
    web, shop = dataplane("web-01", "web", calls=("shop",)), dataplane("shop-01", "shop", port=81)
    before = MeshConfig(MeshView("default").having(web).having(shop))
    assert before.snapshot("web-01", {})
    assert before.snapshot("shop-01", {})
    after = MeshConfig(before.view.following({web.key: None}), before)
    assert before.snapshot("web-01", {})  # whoever has begun with what was before
    after = MeshConfig(after.view.following({shop.key: None}), after)
    assert not after._lasting


def test_what_a_proxy_ran_before_a_change_is_not_kept_beside_what_it_runs() -> None:
    """Of thousands of proxies, and after many changes of the permissions, that would be most of what there is."""
    config = MeshConfig(arrived(mesh(dataplane("web-01", "web", calls=("shop",)))))
    held = config.snapshot("web-01", {})
    first = len(config._generated)
    for number in range(20):
        changed = resource(ALLOW_ALL.replace("'*'", f"shop-{number}", 1))
        config = MeshConfig(config.view.having(changed), config)
        before, held = held, config.snapshot("web-01", {})
        assert held[TypeUrl.ROUTES] != before[TypeUrl.ROUTES]
        del before
        assert len(config._generated) == first


def mesh(*dataplanes: Resource[Any]) -> MeshView:
    view = MeshView("default")
    for found in (resource(MTLS), resource(ALLOW_ALL), *dataplanes):
        view = view.having(found)
    return view
