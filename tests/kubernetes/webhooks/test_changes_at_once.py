"""Two changes of permissions with `kubectl` at once: webhooks judge them before the API server stores them."""

from __future__ import annotations

import asyncio
import itertools
import json
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from kuma.admission.permission_rules import PermissionRules
from kuma.base import aio
from kuma.base.audit import AuditFile
from kuma.base.clock import SystemClock
from kuma.base.errors import InvalidResource
from kuma.base.turns import Turns
from kuma.kubernetes.api.client import ApiClient
from kuma.kubernetes.api.credentials import Credentials
from kuma.kubernetes.controllers.weakened import WeakenedPermissions
from kuma.kubernetes.metrics import Metrics
from kuma.kubernetes.objects.forms import Forms
from kuma.kubernetes.webhooks.dataplanes import DataplaneRules
from kuma.kubernetes.webhooks.in_turn import InTurn
from kuma.kubernetes.webhooks.review import Review
from kuma.kubernetes.webhooks.validation import Validation
from kuma.resources import kinds
from kuma.resources.resource import Resource
from kuma.store.manager import ResourceManager
from kuma.store.protocol import Create, Delete
from kuma.store.sql.embedded.sqlite import open_sqlite
from kuma.store.views import Views
from tests.admission.test_weakening_guard import GUARDED
from tests.fakes.control_plane import resource
from tests.fakes.patience import PATIENCE

SYSTEM = "kuma-system"


def rule(name: str, action: str, caller: str = "kind: Mesh") -> str:
    return (
        f"{{type: MeshTrafficPermission, mesh: default, name: {name}, spec: {{targetRef: {{kind: Mesh}}, from: ["
        f"{{targetRef: {{{caller}}}, default: {{action: {action}}}}}]}}}}"
    )


NOBODY, EVERYBODY = rule("nobody", "Deny"), rule("everybody", "Allow")
WEB = rule("web", "Allow", "kind: MeshService, name: web")


class Judged:
    """A store whose permissions are judged by a webhook, and written past it, as the API server does."""

    def __init__(self, directory: Path, manager: ResourceManager, views: Views, metrics: Metrics) -> None:
        self.manager, self.views, self.metrics = manager, views, metrics
        self._record = directory / "audit.jsonl"
        self._forms = Forms(SYSTEM)

    def control_plane(self, longest: float = PATIENCE) -> InTurn:
        """One whose webhook is asked, and waits for so long for what it has admitted."""
        return InTurn(self.views, guarded=False, longest=longest)

    async def is_admitted(self, operation: str, text: str, at: InTurn) -> None:
        """Ask the webhook of a control plane, which says nothing against it."""
        nowhere = Credentials("https://127.0.0.1:1", ssl.create_default_context(), lambda: "")
        found = resource(text)
        made: dict[str, Any] = {
            "apiVersion": "kuma.io/v1alpha1", "kind": found.key.kind, "spec": found.spec.model_dump(by_alias=True),
            "metadata": {"name": found.name, "namespace": SYSTEM, "labels": {"kuma.io/mesh": found.mesh}},
        }  # fmt: skip
        new, old = (made, None) if operation == "CREATE" else (None, made)
        review = Review("1", operation, found.key.kind, found.name, SYSTEM, "jane", new, old)
        async with ApiClient(nowhere) as client:  # which no permission needs
            await Validation(self.manager, self._forms, "nobody", DataplaneRules(client), at).judge(review)

    async def write(self, *operations: Create | Delete) -> None:
        for operation in operations:
            await self.manager.store.transact([operation])

    async def told(self, count: int = 1) -> list[dict[str, Any]]:
        """What is on record of meshes that were weakened, once it is so much."""
        async with asyncio.timeout(PATIENCE):
            while True:
                lines = [json.loads(line) for line in self._record.read_text().splitlines()]
                found = [line for line in lines if line["event"] == "weakened"]
                if len(found) >= count:
                    return found
                await asyncio.sleep(0.01)


def stored(text: str) -> Resource[Any]:
    """As the control plane knows it: with its namespace."""
    found = resource(text)
    return replace(found, key=kinds.MESH_TRAFFIC_PERMISSION.key(f"{found.name}.{SYSTEM}", found.mesh))


def create(text: str) -> Create:
    return Create(stored(text), kinds.MESH.key("default"))


def delete(text: str) -> Delete:
    return Delete(stored(text).key)


@pytest.fixture
async def judged(tmp_path: Path) -> AsyncIterator[Judged]:
    clock = SystemClock()
    store, audit = await open_sqlite(tmp_path / "kuma.db", clock), AuditFile(tmp_path / "audit.jsonl", clock)
    views, metrics = Views(store), Metrics(CollectorRegistry())
    manager = ResourceManager(store, {"MeshTrafficPermission": PermissionRules(views, Turns())})
    telling = WeakenedPermissions(views, metrics, audit, guarded=False)
    tasks = [aio.spawn(views.run(), name="views"), aio.spawn(telling.run(), name="telling")]
    for each in (resource(GUARDED), stored(NOBODY)):
        there = (await manager.put(each)).resource
        await views.until(lambda: views.holds(there))  # noqa: B023 - at once
    yield Judged(tmp_path, manager, views, metrics)
    await aio.stop(tasks)
    await store.close()
    audit.close()


@pytest.mark.parametrize("changes", [*itertools.permutations([create(EVERYBODY), delete(NOBODY)])])
async def test_whom_two_changes_at_once_let_in_is_told_and_recorded(
    judged: Judged, changes: tuple[Create | Delete, ...]
) -> None:
    """Two control planes were asked."""
    await judged.is_admitted("CREATE", EVERYBODY, judged.control_plane())
    await judged.is_admitted("DELETE", NOBODY, judged.control_plane())
    with capture_logs() as logs:
        await judged.write(*changes)
        (told,) = await judged.told()
    assert told["mesh"] == "default"
    assert told["guarded"] is True
    assert "every inbound" in str(told["weakens"])
    assert [line["log_level"] for line in logs if "weakened" in line["event"]] == ["warning"]
    assert judged.metrics.weakened._value.get() == 1


async def test_nothing_is_told_of_whom_a_permission_names_or_another_one_denies(judged: Judged) -> None:
    await judged.write(create(WEB), create(rule("nor", "Deny")), create(EVERYBODY), delete(rule("nor", "Deny")))
    await judged.write(delete(NOBODY))
    (told,) = await judged.told()
    assert told["name"] == f"nobody.{SYSTEM}"


@pytest.mark.parametrize("names", [(EVERYBODY, NOBODY), (NOBODY, EVERYBODY)], ids=["create first", "delete first"])
async def test_of_two_changes_at_once_a_control_plane_admits_no_more_than_one_after_the_other(
    judged: Judged, names: tuple[str, str]
) -> None:
    operations: dict[str, tuple[str, Create | Delete]] = {
        EVERYBODY: ("CREATE", create(EVERYBODY)),
        NOBODY: ("DELETE", delete(NOBODY)),
    }
    (first, change), (second, _) = [operations[name] for name in names]
    at = judged.control_plane()
    await judged.is_admitted(first, names[0], at)
    asked = aio.spawn(judged.is_admitted(second, names[1], at), name="second")
    await judged.write(change)
    with pytest.raises(InvalidResource, match="every inbound"):
        await asked


async def test_what_was_admitted_and_never_stored_holds_nothing_up(judged: Judged) -> None:
    at = judged.control_plane(longest=0.01)
    await judged.is_admitted("CREATE", EVERYBODY, at)
    await judged.is_admitted("DELETE", NOBODY, at)
