"""What breaks a rule of a file is refused through kubectl in the words in which kumactl refuses it."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from kuma.admission.mesh_rules import MeshRules
from kuma.base.errors import InvalidResource
from kuma.kubernetes.api.client import ApiClient
from kuma.kubernetes.api.credentials import Credentials
from kuma.kubernetes.objects.forms import Forms
from kuma.kubernetes.webhooks.dataplanes import DataplaneRules
from kuma.kubernetes.webhooks.in_turn import InTurn
from kuma.kubernetes.webhooks.review import Review
from kuma.kubernetes.webhooks.validation import Validation
from kuma.resources import codec
from kuma.store.manager import ResourceManager
from kuma.store.sql.embedded.sqlite import open_sqlite
from kuma.store.views import Views
from tests.fakes.clock import ManualClock
from tests.fakes.control_plane import resource
from tests.resources.test_parsing import REFUSED

_KINDS = ("Mesh", "TrafficPermission", "MeshTrafficPermission")
_ELSEWHERE = ("name", "transition")
"""Fields that the API server itself looks at."""
FILES = {
    identity: document
    for identity, document, field, _ in REFUSED
    if document.get("type") in _KINDS and field not in _ELSEWHERE
}
FILES |= {
    "denied action": {
        "type": "MeshTrafficPermission", "mesh": "default", "name": "p",
        "spec": {"targetRef": {"kind": "Mesh"}, "from": [{"targetRef": {"kind": "Mesh"}, "default": {"action": "No"}}]},
    },
    "no such Secret": {
        "type": "Mesh", "name": "m", "mtls": {"backends": [
            {"name": "p", "type": "provided", "conf": {"cert": {"secret": "c"}, "key": {"secret": "k"}}}
        ]},
    },
    "half a pair": {
        "type": "Mesh", "name": "m", "mtls": {"backends": [{"name": "p", "type": "provided", "conf": {"cert": {}}}]},
    },
}  # fmt: skip


@pytest.fixture
async def manager(tmp_path: Path) -> AsyncIterator[ResourceManager]:
    store = await open_sqlite(tmp_path / "kuma.db", ManualClock())
    try:
        found = ResourceManager(store, {"Mesh": MeshRules(ManualClock())})
        await found.put(resource("{type: Mesh, name: default}"))
        yield found
    finally:
        await store.close()


@pytest.fixture
async def validation(manager: ResourceManager) -> AsyncIterator[Validation]:
    nowhere = Credentials("https://127.0.0.1:1", ssl.create_default_context(), lambda: "")
    async with ApiClient(nowhere) as client:  # which no Mesh and no permission needs
        order = InTurn(Views(manager.store), guarded=False)
        yield Validation(manager, Forms("kuma-system"), "nobody", DataplaneRules(client), order)


def for_kubectl(document: dict[str, Any]) -> dict[str, Any]:
    content = {name: value for name, value in document.items() if name not in ("type", "mesh", "name")}
    nested = document["type"].startswith("Mesh") and document["type"] != "Mesh"
    placed = {"namespace": "kuma-system", "labels": {"kuma.io/mesh": "default"}} if nested else {}
    return {
        "apiVersion": "kuma.io/v1alpha1",
        "kind": document["type"],
        "metadata": {"name": document["name"], **placed},
        **({"mesh": "default"} if document["type"] == "TrafficPermission" else {}),
        "spec": content["spec"] if nested else content,
    }


async def said(work: Any) -> list[tuple[str, str]]:
    with pytest.raises(InvalidResource) as caught:
        await work
    return [(violation.field, violation.reason) for violation in caught.value.violations]


@pytest.mark.parametrize("document", FILES.values(), ids=FILES)
async def test_a_file_is_refused_in_the_same_words(
    manager: ResourceManager, validation: Validation, document: dict[str, Any]
) -> None:
    async def by_kumactl() -> None:
        await manager.put(codec.parse(document))

    new = for_kubectl(document)
    namespace = new["metadata"].get("namespace", "")
    review = Review("1", "CREATE", new["kind"], new["metadata"]["name"], namespace, "jane", new, None)
    there = await said(validation.judge(review))
    here = [
        (field if field.startswith("spec") else f"spec.{field}", reason) for field, reason in await said(by_kumactl())
    ]
    assert there == here
