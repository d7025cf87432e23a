"""What is generated for a mesh is kept as long as it is in use, however large the mesh is, and no longer."""

from dataclasses import replace

import pytest

from kuma.resources.view import MeshView
from kuma.xds.envoy.generated import Generated
from kuma.xds.envoy.resource import Entry, TypeUrl
from kuma.xds.envoy.services import clusters
from kuma.xds.envoy.snapshot import MeshConfig
from tests.fakes.control_plane import dataplane


def numbered(number: int) -> Entry:
    return Entry.of(f"n-{number}", clusters.socket("10.0.0.1", number))


@pytest.mark.parametrize("in_use", [1, 7, 20_000])
def test_all_that_is_in_use_stays_however_much_it_is(in_use: int) -> None:
    generated = Generated()
    generated.expect(in_use)
    first = [generated.entry(numbered, number) for number in range(in_use)]
    for _ in range(2):
        assert all(generated.entry(numbered, number) is first[number] for number in range(in_use))


def test_what_is_in_use_no_more_goes(in_use: int = 50) -> None:
    generated = Generated()
    generated.expect(in_use)
    used = [generated.entry(numbered, number) for number in range(in_use // 2)]
    for number in range(in_use, 10 * in_use):
        generated.entry(numbered, number)
        assert all(generated.entry(numbered, n) is used[n] for n in range(in_use // 2)), "what is asked for stays"
        assert len(generated) <= 2 * in_use


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
    held = services + len(config.permissions._known) + len(config._generated)
    assert held <= 2 * 5 * 2 + 2 + 2
