"""What a permission takes away from callers when it takes the place of another one."""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from kuma.admission.permission_rules import PermissionRules
from kuma.base import aio
from kuma.base.clock import SystemClock
from kuma.base.errors import InvalidResource
from kuma.base.turns import Turns
from kuma.store.manager import Outcome, ResourceManager, Rules
from kuma.store.protocol import AnyResource, Store
from kuma.store.sql.embedded.sqlite import open_sqlite
from kuma.store.views import Views
from tests.fakes.control_plane import ALLOW_ALL, dataplane, resource


class Following(ResourceManager):
    """Whoever puts something waits until it is in the view, by which the next is judged."""

    def __init__(self, store: Store, rules: Mapping[str, Rules], views: Views) -> None:
        super().__init__(store, rules)
        self._views = views

    async def put(self, resource: AnyResource, *, strict: bool = False, allow_weakening: bool = False) -> Outcome:
        outcome = await super().put(resource, strict=strict, allow_weakening=allow_weakening)
        await self._views.until(lambda: self._views.holds(outcome.resource))
        return outcome


@pytest.fixture
async def manager(tmp_path: Path) -> AsyncIterator[ResourceManager]:
    store = await open_sqlite(tmp_path / "kuma.db", SystemClock())
    views = Views(store)
    following = aio.spawn(views.run(), name="views")
    judge = PermissionRules(views, Turns())
    found = Following(store, {"TrafficPermission": judge, "MeshTrafficPermission": judge}, views)
    await found.put(resource("{type: Mesh, name: default}"))
    for described in (dataplane("web-01", "web"), dataplane("web-02", "web"), dataplane("db-01", "db")):
        await found.put(described)
    await found.put(resource(ALLOW_ALL))
    yield found
    await aio.stop([following])
    await store.close()


def permission(source: str, destination: str, name: str = "narrow") -> str:
    return (
        f"{{type: TrafficPermission, mesh: default, name: {name}, sources: [{{match: {{kuma.io/service: {source}}}}}], "
        f"destinations: [{{match: {{kuma.io/service: {destination}}}}}]}}"
    )


async def warnings(manager: ResourceManager, text: str) -> list[str]:
    """What a permission takes away, by its warnings: who is not there at all is told apart."""
    outcome = await manager.put(resource(text))
    return [w.partition("; list")[0] for w in outcome.warnings if w not in outcome.absences]


async def test_a_more_specific_permission_is_warned_of(manager: ResourceManager) -> None:
    (warning,) = await warnings(manager, permission("shop", "web"))
    assert warning.startswith(
        'service "web": this permission decides in place of "allow-all" now, and refuses what that one allowed: '
        "any caller. Permissions do not add up"
    )
    assert await warnings(manager, permission("bank", "web")) == []  # it says itself what it says no more
    (again,) = await warnings(manager, permission("shop", "web", name="newer"))
    assert 'in place of "narrow" now, and refuses what that one allowed: kuma.io/service=bank' in again


async def test_one_that_takes_nothing_away_is_not(manager: ResourceManager) -> None:
    assert await warnings(manager, permission("'*'", "web")) == []
    assert await warnings(manager, permission("shop", "nobody")) == []


async def test_the_first_mesh_permission_of_an_inbound_is_warned_of(manager: ResourceManager) -> None:
    item = "{targetRef: {kind: MeshSubset, tags: {kuma.io/service: shop}}, default: {action: Allow}}"
    (warning,) = await warnings(
        manager,
        "{type: MeshTrafficPermission, mesh: default, name: m, "
        f"spec: {{targetRef: {{kind: MeshSubset, tags: {{kuma.io/service: db}}}}, from: [{item}]}}}}",
    )
    assert warning.startswith('service "db": this permission decides in place of "allow-all"')


async def test_one_in_shadow_takes_nothing_away_and_says_so(manager: ResourceManager) -> None:
    item = "{targetRef: {kind: Mesh}, default: {action: Deny}}"
    (warning,) = await warnings(
        manager,
        "{type: MeshTrafficPermission, mesh: default, name: m, labels: {kuma.io/effect: shadow}, "
        f"spec: {{targetRef: {{kind: Mesh}}, from: [{item}]}}}}",
    )
    assert warning == "the label kuma.io/effect: shadow keeps it from any effect: it is stored and shown only"


def crowd(name: str, target: str, callers: int) -> str:
    items = ", ".join(
        f"{{targetRef: {{kind: MeshSubset, tags: {{kuma.io/service: {name}-{number}}}}}, default: {{action: Allow}}}}"
        for number in range(callers)
    )
    return (
        f"{{type: MeshTrafficPermission, mesh: default, name: {name}, spec: {{targetRef: {target}, from: [{items}]}}}}"
    )


@pytest.mark.parametrize(
    ("target", "whose"),
    [
        ("{kind: Mesh}", "that select their target by no service"),
        ("{kind: MeshSubset, tags: {kuma.io/service: web}}", 'for the service "web"'),
    ],
)
async def test_all_permissions_together_name_no_more_callers_than_proxies_can_bear(
    manager: ResourceManager, target: str, whose: str
) -> None:
    for name, callers in (("a", 1000), ("b", 900)):
        await manager.put(resource(crowd(name, target, callers)))
    with pytest.raises(InvalidResource, match=f"makes 2,001 callers in all MeshTrafficPermissions {whose}; 2,000 are"):
        await manager.put(resource(crowd("c", target, 101)))
    await manager.put(resource(crowd("b", target, 1)))
    await manager.put(resource(crowd("c", target, 101)))
    await manager.put(resource(crowd("d", "{kind: MeshSubset, tags: {kuma.io/service: other}}", 999)))


def mesh_permission(*items: tuple[str, str], target: str = "{kind: Mesh}") -> str:
    refs = {"*": "{kind: Mesh}"}
    from_ = ", ".join(
        f"{{targetRef: {refs.get(caller, f'{{kind: MeshSubset, tags: {{kuma.io/service: {caller}}}}}')}, "
        f"default: {{action: {action}}}}}"
        for caller, action in items
    )
    return f"{{type: MeshTrafficPermission, mesh: default, name: m, spec: {{targetRef: {target}, from: [{from_}]}}}}"


async def test_what_a_first_mesh_permission_denies_is_lost_though_it_allows_all_others(
    manager: ResourceManager,
) -> None:
    await manager.put(resource(permission("web", "db", name="web-to-db")))
    to_db = "{kind: MeshSubset, tags: {kuma.io/service: db}}"
    (warning,) = await warnings(manager, mesh_permission(("*", "Allow"), ("web", "Deny"), target=to_db))
    assert warning.startswith(
        'service "db": this permission decides in place of "web-to-db" now, and refuses what that one allowed: '
        "kuma.io/service=web. "
    )


async def test_of_callers_that_are_denied_in_part_that_part_is_named(manager: ResourceManager) -> None:
    found = await warnings(manager, mesh_permission(("*", "Allow"), ("web", "Deny")))
    assert [w.partition(". ")[0] for w in found] == [
        f'service "{service}": this permission decides in place of "allow-all" now, and refuses what that one '
        "allowed: kuma.io/service=web"
        for service in ("db", "web")
    ]


async def test_what_is_denied_to_others_takes_nothing_away(manager: ResourceManager) -> None:
    await manager.put(resource(permission("shop", "db", name="shop-to-db")))
    to_db = "{kind: MeshSubset, tags: {kuma.io/service: db}}"
    text = mesh_permission(("*", "Allow"), ("web", "Deny"), ("*", "AllowWithShadowDeny"), target=to_db)
    assert await warnings(manager, text) == []


async def test_what_was_denied_before_is_not_lost(manager: ResourceManager) -> None:
    await manager.put(resource(mesh_permission(("*", "Allow"), ("web", "Deny"), ("web", "Allow"))))
    moved = "{kind: MeshSubset, tags: {kuma.io/service: nobody}}"
    await manager.put(resource(permission("shop", "'*'", name="allow-all")))
    found = await warnings(manager, mesh_permission(("*", "Allow"), target=moved))
    assert found, "without it the legacy permission decides"
    assert all("allowed: any caller" in warning for warning in found), "and web was refused before, too"


async def test_one_denial_of_another_kind_is_found_among_hundreds(manager: ResourceManager) -> None:
    sources = ", ".join(f"{{match: {{kuma.io/service: web-{number}}}}}" for number in range(300))
    to_db = "destinations: [{match: {kuma.io/service: db}}]"
    await manager.put(
        resource(f"{{type: TrafficPermission, mesh: default, name: to-db, sources: [{sources}], {to_db}}}")
    )
    denied = [(f"other-{number}", "Deny") for number in range(300)]
    text = mesh_permission(("*", "Allow"), *denied, target="{kind: MeshSubset, tags: {kuma.io/service: db}}")
    version = "{targetRef: {kind: MeshSubset, tags: {version: v1}}, default: {action: Deny}}]"
    (warning,) = await warnings(manager, version.join(text.rsplit("]", 1)).replace("}{targetRef", "}, {targetRef"))
    assert "refuses what that one allowed: kuma.io/service=web-0 version=v1. " in warning
