"""Certificates of proxies at other control planes are known as those tell of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from kuma.base import aio
from kuma.coordination.coordination import Alone
from kuma.resources import kinds
from kuma.resources.models.dataplane_insight import DataplaneInsightSpec
from kuma.resources.resource import Resource
from kuma.store.protocol import Create, Delete, Store, Update
from kuma.store.sql.embedded.sqlite import open_sqlite
from kuma.store.views import Views
from kuma.xds.proxies.elsewhere.certified_elsewhere import CertifiedElsewhere
from tests.fakes.clock import ManualClock
from tests.fakes.control_plane import resource


class Together(Alone):
    """A control plane that knows of another one."""

    def others(self) -> frozenset[str]:
        return frozenset({"cp-2"})


def insight(name: str, server: str, serial: str) -> Resource[DataplaneInsightSpec]:
    subscription = {
        "id": "1",
        "controlPlaneInstanceId": server,
        "connectTime": "2026-01-01T00:00:00Z",
        "status": {"lastUpdateTime": "2026-01-01T00:00:00Z", "total": {}},
    }
    spec = {"subscriptions": [subscription], "mTLS": {"serial": serial, "issuedBackend": "ca-1"}}
    return Resource(kinds.DATAPLANE_INSIGHT.key(name, "default"), DataplaneInsightSpec.model_validate(spec))


@asynccontextmanager
async def followed(path: Path) -> AsyncIterator[tuple[Store, Views]]:
    store = await open_sqlite(path / "kuma.db", ManualClock())
    views = Views(store)
    try:
        await store.transact([Create(resource("{type: Mesh, name: default}"), None)])
        yield store, views
    finally:
        await store.close()


async def test_who_asks_for_certificates_again_and_again_reads_nothing_from_the_store(tmp_path: Path) -> None:
    async with followed(tmp_path) as (store, views):
        known, mesh = CertifiedElsewhere(views, Together()), kinds.MESH.key("default")
        first, *_ = await store.transact([Create(insight("a", "cp-2", "1"), mesh)])
        task = aio.spawn(views.run(), name="views")

        def serials() -> dict[str, Any]:
            return {key.name: mtls.serial for key, mtls in known()}

        try:
            await views.until(lambda: serials() == {"a": "1"})
            await store.transact([Create(insight("b", "cp-2", "2"), mesh), Create(insight("c", "cp-1", "3"), mesh)])
            await views.until(lambda: serials() == {"a": "1", "b": "2"})
            again = replace(insight("a", "cp-2", "9"), version=first.version)
            await store.transact([Update(again), Delete(kinds.DATAPLANE_INSIGHT.key("b", "default"))])
            await views.until(lambda: serials() == {"a": "9"})
        finally:
            await aio.stop([task])
        await store.close()
        assert serials() == {"a": "9"}  # with no store behind it
