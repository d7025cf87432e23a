"""What is noted of permissions admits nobody when it is about a change that was never made, or not understood."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from kuma.admission import former_permissions
from kuma.base.clock import SystemClock
from kuma.policy.permissions import Permissions
from kuma.resources import kinds
from kuma.resources.models.config import ConfigSpec
from kuma.resources.resource import Resource
from kuma.store.protocol import Create
from kuma.store.sql.embedded.sqlite import open_sqlite
from kuma.xds.proxies.elsewhere.noted_permissions import FormerPermissions
from tests.fakes.clock import ManualClock
from tests.fakes.control_plane import ALLOW_ALL, MTLS, resource, running
from tests.fakes.patience import PATIENCE

BY_TAG = resource(
    "{type: TrafficPermission, mesh: default, name: allow-all, sources: [{match: {kuma.io/service: '*', env: prod}}], "
    "destinations: [{match: {kuma.io/service: backend}}]}"
)
SOME = {"kind": "TrafficPermission", "mesh": "default", "name": "some"}
NARROWER = ALLOW_ALL.replace("kuma.io/service: '*'", "kuma.io/service: web", 1)


async def test_what_is_noted_of_a_change_that_failed_goes_with_the_next_one(tmp_path: Path) -> None:
    """A webhook notes it before the change, which another webhook may refuse: weeks later it would admit anybody."""
    async with running(tmp_path, ManualClock()) as cp:
        store = cp.parts.manager.store
        await cp.apply(MTLS, ALLOW_ALL)
        old = await store.get(BY_TAG.key)
        after = Permissions().following({BY_TAG.name: BY_TAG}, {})
        noted = await former_permissions.noted(Permissions(), after, BY_TAG.key, old, store)
        assert len(noted) == 1
        await store.transact(noted)
        await cp.apply(NARROWER)
        async with asyncio.timeout(PATIENCE):
            while (await store.list(kinds.CONFIG.name, name_contains=kinds.FORMER_PERMISSION)).total:
                await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "said",
    [
        {**SOME, "kind": "PermissionToCome"},
        {**SOME, "kind": "PermissionToCome", "spec": {}, "labels": {}, "since": "2026-11-27T08:00:00+00:00"},
        {**SOME, "kind": ["TrafficPermission"]},
        {**SOME, "spec": {"sources": 1}, "labels": {}, "since": "2026-11-27T08:00:00+00:00"},
        {**SOME, "spec": BY_TAG.spec.to_wire(), "labels": {}, "since": "yesterday"},
        {**SOME, "spec": BY_TAG.spec.to_wire(), "labels": None, "since": "2026-11-27T08:00:00+00:00"},
        {"mesh": "default"},
        ["default"],
    ],
)
async def test_what_another_version_has_noted_is_as_good_as_nothing(said: Any, tmp_path: Path) -> None:
    store = await open_sqlite(tmp_path / "kuma.db", SystemClock())
    key = kinds.CONFIG.key(f"{kinds.FORMER_PERMISSION}of-a-version-to-come")
    await store.transact([Create(Resource(key, ConfigSpec(config=json.dumps(said))))])
    former = FormerPermissions(store)
    await former.recall(store)
    assert former.of("default", Permissions()) is None
    await store.close()
