"""What a permission was is noted before `kubectl` changes it, as it is before kumactl does."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kuma.admission import former_permissions
from kuma.admission.permission_rules import PermissionRules
from kuma.base import aio
from kuma.base.clock import SystemClock
from kuma.base.turns import Turns
from kuma.kubernetes.api.client import ApiClient
from kuma.kubernetes.api.credentials import Credentials
from kuma.kubernetes.objects.forms import Forms
from kuma.kubernetes.webhooks.dataplanes import DataplaneRules
from kuma.kubernetes.webhooks.in_turn import InTurn
from kuma.kubernetes.webhooks.review import Review
from kuma.kubernetes.webhooks.validation import Validation
from kuma.policy.permissions import Permissions
from kuma.resources import codec, kinds
from kuma.store.manager import ResourceManager
from kuma.store.sql.embedded.sqlite import open_sqlite
from kuma.store.views import Views
from kuma.xds.proxies.elsewhere.noted_permissions import FormerPermissions
from tests.fakes.control_plane import MTLS, resource

BY_TAG = {
    "apiVersion": "kuma.io/v1alpha1",
    "kind": "TrafficPermission",
    "mesh": "default",
    "metadata": {"name": "prod"},
    "spec": {
        "sources": [{"match": {"kuma.io/service": "*", "env": "prod"}}],
        "destinations": [{"match": {"kuma.io/service": "*"}}],
    },
}
CREATED = Review("1", "CREATE", "TrafficPermission", "prod", "", "jane", BY_TAG, None)


@pytest.fixture
async def manager(tmp_path: Path) -> AsyncIterator[ResourceManager]:
    store = await open_sqlite(tmp_path / "kuma.db", SystemClock())
    views = Views(store)
    following = aio.spawn(views.run(), name="views")
    found = ResourceManager(store, {"TrafficPermission": PermissionRules(views, Turns())})
    mesh = (await found.put(resource(MTLS))).resource
    await views.until(lambda: views.holds(mesh))
    yield found
    await aio.stop([following])
    await store.close()


async def judged(manager: ResourceManager, review: Review) -> int:
    """How many permissions it is noted of what they were, after a webhook has been asked."""
    nowhere = Credentials("https://127.0.0.1:1", ssl.create_default_context(), lambda: "")
    async with ApiClient(nowhere) as client:  # which no permission needs
        order = InTurn(Views(manager.store), guarded=False)
        await Validation(manager, Forms("kuma-system"), "nobody", DataplaneRules(client), order).judge(review)
    return (await manager.list(kinds.CONFIG.name, name_contains=kinds.FORMER_PERMISSION)).total


async def test_what_a_permission_was_is_noted_once_and_not_for_a_dry_run(manager: ResourceManager) -> None:
    assert await judged(manager, replace(CREATED, dry_run=True)) == 0
    assert await judged(manager, CREATED) == 1
    assert await judged(manager, CREATED) == 1


async def test_what_is_deleted_is_noted_while_others_look_at_tags(manager: ResourceManager) -> None:
    await judged(manager, CREATED)
    old: dict[str, Any] = {**BY_TAG, "metadata": {"name": "other"}}
    deleted = replace(CREATED, operation="DELETE", name="other", new=None, old=old)
    assert await judged(manager, deleted) == 1, "what remains looks at no tag"


async def test_of_what_no_config_map_holds_it_is_noted_that_nobody_knows_what_decided(manager: ResourceManager) -> None:
    old = codec.parse(BY_TAG)
    huge, after = replace(old, labels={"x": "ä" * 200_000}), Permissions.of([old], [])
    store, mesh = manager.store, old.mesh
    for stored, is_known in ((old, True), (huge, False)):
        noted = await former_permissions.noted(Permissions(), after, old.key, stored, store)
        assert len(noted) == 1
        await store.transact(noted)
        former = FormerPermissions(store)
        await former.recall(store)
        assert (former.of(mesh, after) is not None) is is_known
        former.begin(mesh)
        former.end(mesh)
        assert await former.store()
