"""What weakens, of every kind that can: the answer tells it, the log and a dry run do, and a guard refuses it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from kuma.base.tls.trust import NOBODY
from kuma.resources import codec, kinds
from tests.admission.test_edited_dataplanes import PERMISSIONS, dataplane, of
from tests.admission.test_told_edits import secret
from tests.fakes.control_plane import ALLOW_ALL, MTLS, Running, resource, running
from tests.fakes.patience import PATIENCE

EVERYBODY = (
    "{type: MeshTrafficPermission, mesh: default, name: all, spec: {targetRef: {kind: Mesh}, from: ["
    "{targetRef: {kind: Mesh}, default: {action: Allow}}]}}"
)
NO_DEV = EVERYBODY.replace("name: all", "name: no-dev").replace(
    "targetRef: {kind: Mesh}, default: {action: Allow}",
    "targetRef: {kind: MeshSubset, tags: {env: dev}}, default: {action: Deny}",
)
NARROW = ALLOW_ALL.replace("allow-all", "narrow").replace("'*'", "web")
REVOKED = secret("dataplane-token-revocations-default", "a")
USERS = secret("user-token-revocations", "a").replace("Secret, mesh: default", "GlobalSecret")


@dataclass(frozen=True)
class Change:
    """What is stored before, and what is then put (or, without, deleted), and what that says."""

    before: tuple[str, ...]
    put: str
    says: str
    delete: str = ""


CHANGES = {
    "Mesh": Change((MTLS,), "{type: Mesh, name: default}", "this turns mutual TLS off"),
    "Mesh, deleted": Change((MTLS,), "", "its mutual TLS, its permissions and its guard are deleted", MTLS),
    "TrafficPermission": Change((MTLS,), ALLOW_ALL, "all callers with an identity of the mesh are admitted"),
    "TrafficPermission, deleted": Change((MTLS, ALLOW_ALL, NARROW), "", "all callers with an identity", NARROW),
    "MeshTrafficPermission": Change((MTLS,), EVERYBODY, "all callers with an identity of the mesh are admitted"),
    "MeshTrafficPermission, deleted": Change((MTLS, EVERYBODY, NO_DEV), "", "callers with env=dev", NO_DEV),
    "Secret of revocations": Change(
        (MTLS, REVOKED), secret("dataplane-token-revocations-default", "b"), "the token a is revoked no more"
    ),
    "Secret of revocations, deleted": Change((MTLS, REVOKED), "", "the token a is revoked no more", REVOKED),
    "GlobalSecret": Change((USERS,), "", "the token a is revoked no more", USERS),
    "Dataplane": Change(
        (MTLS, PERMISSIONS[1], dataplane(of("db"))), dataplane(of("open")), "all callers with an identity of the mesh"
    ),
}


async def asked(cp: Running, client: httpx.AsyncClient, change: Change, **query: Any) -> httpx.Response:
    found = resource(change.put or change.delete)
    kind = kinds.by_name(found.key.kind)
    path = f"/{'' if not found.mesh else f'meshes/{found.mesh}/'}{kind.path}/{found.name}"
    if change.put:
        return await client.put(path, json=codec.to_universal(found), params=query)
    return await client.delete(path, params=query)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_it_is_told_everywhere_and_refused_by_a_guard(tmp_path: Path, change: Change) -> None:
    async with running(tmp_path, defaults={"refuse_weakening": True}) as cp:
        for text in change.before:
            outcome = await cp.parts.manager.put(resource(text), allow_weakening=True)
            await cp.parts.views.until(
                lambda: "Secret" in outcome.resource.key.kind or cp.parts.views.holds(outcome.resource)  # noqa: B023
            )
        url = f"http://127.0.0.1:{await cp.api_port()}"
        async with httpx.AsyncClient(base_url=url, timeout=PATIENCE, verify=NOBODY, trust_env=False) as client:
            key = resource(change.put or change.delete).key
            stored = await cp.parts.manager.find(key)
            for query in ({"dryRun": "All"}, {}):
                refused = await asked(cp, client, change, **query)
                assert refused.status_code == 400, refused.text
                assert "refuses what weakens it" in refused.text
            for query in ({"dryRun": "All"}, {}):
                assert await cp.parts.manager.find(key) == stored
                with capture_logs() as logged:
                    answer = await asked(cp, client, change, allowWeakening="true", **query)
                assert answer.status_code in (200, 201), answer.text
                (told,) = [text for text in answer.json()["warnings"] if text.startswith("this weakens the mesh: ")]
                assert change.says in told
                assert (told in [line.get("warning") for line in logged]) is (query == {})
