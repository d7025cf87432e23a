"""At which addresses services are called is written by the control plane only: callers would be sent elsewhere."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from kuma.base.errors import AccessDenied
from kuma.kubernetes.objects.forms import Forms
from kuma.kubernetes.webhooks.review import Review
from kuma.kubernetes.webhooks.validation import Validation
from kuma.store.manager import ResourceManager
from kuma.store.sql.sqlite import open_sqlite
from tests.fakes.clock import ManualClock
from tests.fakes.control_plane import resource

ADDRESS = "k8s.kuma.io/address.10.96.0.5:80"
SINCE = "2026-01-01T00:00:00Z"
OWN = "system:serviceaccount:kuma-system:kuma-control-plane"


def dataplane(**tags: str) -> dict[str, Any]:
    inbound = {"port": 8080, "serviceAddress": "127.0.0.1", "tags": {"kuma.io/service": "mine_shop_svc_80", **tags}}
    return {
        "apiVersion": "kuma.io/v1alpha1", "kind": "Dataplane", "mesh": "default",
        "metadata": {"name": "mine", "namespace": "shop", "resourceVersion": "1", "creationTimestamp": SINCE},
        "spec": {"networking": {"address": "10.0.0.7", "inbound": [inbound]}},
    }  # fmt: skip


def review(new: dict[str, Any], old: dict[str, Any] | None = None, user: str = "jane") -> Review:
    return Review("1", "UPDATE" if old else "CREATE", "Dataplane", "mine", "shop", user, new, old)


@pytest.fixture
async def validation(tmp_path: Path) -> AsyncIterator[Validation]:
    store = await open_sqlite(tmp_path / "kuma.db", ManualClock())
    try:
        manager = ResourceManager(store, {})
        await manager.put(resource("{type: Mesh, name: default}"))
        yield Validation(manager, Forms("kuma-system"), OWN)
    finally:
        await store.close()


async def test_nobody_else_writes_them(validation: Validation) -> None:
    mine, plain = {ADDRESS: "other"}, dataplane()
    for old in (None, plain, dataplane(**{f"{ADDRESS}80": "mine"})):
        with pytest.raises(AccessDenied, match="written by the control plane only"):
            await validation.judge(review(dataplane(**mine), old))
    with pytest.raises(AccessDenied):  # nor is what is there said of another service
        await validation.judge(review(dataplane(version="2", **mine), dataplane(**mine)))
    await validation.judge(review(plain))
    await validation.judge(review(dataplane(**mine), user=OWN))


async def test_what_is_there_is_no_obstacle_to_an_edit_and_may_go(validation: Validation) -> None:
    old = dataplane(**{ADDRESS: "mine"})
    new = dataplane(**{ADDRESS: "mine"})
    new["metadata"]["labels"] = {"team": "blue"}
    await validation.judge(review(new, old))
    await validation.judge(review(dataplane(), old))
