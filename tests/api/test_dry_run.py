"""Asking what would become of something: judged as ever, and nothing is stored."""

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from kuma.base.tls.trust import NOBODY
from kuma.resources import codec
from tests.api.test_api import MESH, PERMISSION, SECRET, Api, api, manager  # noqa: F401 - fixtures
from tests.fakes.control_plane import dataplane, running
from tests.fakes.patience import PATIENCE

MTLS: Mapping[str, Any] = {
    **MESH, "mtls": {"enabledBackend": "ca-1", "backends": [{"name": "ca-1", "type": "builtin"}]},
}  # fmt: skip
PROVIDED: Mapping[str, Any] = {
    **MESH,
    "name": "new",
    "mtls": {
        "enabledBackend": "ca-1",
        "backends": [
            {"name": "ca-1", "type": "provided", "conf": {"cert": {"secret": "c"}, "key": {"secret": "k"}}},
        ],
    },
}  # fmt: skip


async def test_a_put_and_a_delete_store_nothing(api: Api) -> None:  # noqa: F811
    await api("PUT", "/meshes/default", json=MESH)
    before = (await api("GET", "/meshes/default")).json()
    done = await api("PUT", "/meshes/default?dryRun=All", json=MTLS)
    assert (done.status_code, "warnings" in done.json() or done.json() != {}) == (200, True)
    assert (await api("PUT", "/meshes/other?dryRun=All", json={**MESH, "name": "other"})).status_code == 201
    assert (await api("GET", "/meshes/other")).status_code == 404
    assert (await api("DELETE", "/meshes/default?dryRun=All")).status_code == 200
    assert (await api("GET", "/meshes/default")).json() == before
    assert (await api("GET", "/meshes/default/secrets")).json()["total"] == 1, "the signing key; no CA was made"
    refused = await api("PUT", "/meshes/default?dryRun=All", json={**MTLS, "mtls": {"enabledBackend": "x"}})
    assert (refused.status_code, refused.json()["invalid_parameters"][0]["field"]) == (400, "mtls.enabledBackend")
    typo = await api("PUT", "/meshes/default?dryRun=all", json=MTLS)
    assert (typo.status_code, typo.json()["invalid_parameters"][0]["field"]) == (400, "dryRun")
    assert (await api("GET", "/meshes/default")).json() == before


@pytest.mark.parametrize(
    ("query", "field"),
    [("dryrun=All", "dryrun"), ("dry-run=All", "dry-run"), ("DryRun=All", "DryRun"), ("strict=1", "strict"),
     ("dryRun=All&dryRun=All", "dryRun"), ("strict=true&strict=false", "strict"),
     ("allowWeakening=false&allowWeakening=true", "allowWeakening"),
     ("Strict=true", "Strict"), ("allowWeakening=yes", "allowWeakening")],
)  # fmt: skip
async def test_what_is_asked_for_in_other_words_is_not_passed_over(api: Api, query: str, field: str) -> None:  # noqa: F811
    """Before, the first of them stored what was meant to be tried, and `strict=1` was not strict."""
    answer = await api("PUT", f"/meshes/other?{query}", json={**MESH, "name": "other"})
    assert (answer.status_code, answer.json()["invalid_parameters"][0]["field"]) == (400, field)
    assert (await api("GET", "/meshes/other")).status_code == 404


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
@pytest.mark.parametrize(
    "condition",
    [{"If-None-Match": "*"}, {"If-Match": '"1"'}, {"If-Unmodified-Since": "Mon, 01 Jan 2001 00:00:00 GMT"}],
    ids=lambda condition: next(iter(condition)),
)
async def test_who_wants_to_change_only_what_was_not_changed_changes_nothing(
    api: Api,  # noqa: F811
    method: str,
    condition: dict[str, str],
) -> None:
    """There are no versions to compare with, and RFC 9110 has a method not performed that depends on one."""
    await api.put(PERMISSION)
    path = f"/meshes/default/traffic-permissions/{PERMISSION['name']}"
    before = (await api("GET", path)).json()
    other = {**PERMISSION, "sources": [{"match": {"kuma.io/service": "other"}}]}
    answer = await api(method, path, headers=condition, json=other if method == "PUT" else None)
    assert (answer.status_code, "Nothing was changed" in answer.json()["detail"]) == (412, True)
    assert (await api("GET", path)).json() == before


async def test_several_are_judged_one_after_the_other(api: Api) -> None:  # noqa: F811
    permission = {**PERMISSION, "mesh": "other"}
    resources = [permission, {**MESH, "name": "other"}, permission, {**SECRET, "mesh": "other"}, {"type": "Mesh"}]
    done = await api("POST", "/_dry-run", json={"resources": resources})
    early, mesh, late, secret, wrong = done.json()["items"]
    assert early["error"]["invalid_parameters"] == [{"field": "mesh", "reason": "mesh of name other is not found"}]
    assert (mesh["created"], mesh["changed"], mesh["before"], mesh["after"]["name"]) == (True, True, None, "other")
    assert (late["created"], late["name"], late["after"]["sources"]) == (True, "all", PERMISSION["sources"])
    assert (secret["created"], "data" in secret["after"]) == (True, False)
    assert wrong["error"]["status"] == 400
    assert (await api("GET", "/meshes/other")).status_code == 404


async def test_what_is_asked_for_is_refused_or_told_as_when_it_is_done(api: Api) -> None:  # noqa: F811
    logged = {**MESH, "name": "new", "logging": {"backends": [{"name": "x", "type": "tcp"}]}}
    asked = {"resources": [PROVIDED, logged], "strict": True}
    waiting, strict = (await api("POST", "/_dry-run", json=asked)).json()["items"]
    real = await api("PUT", "/meshes/new?strict=true", json=PROVIDED)
    assert waiting["error"]["invalid_parameters"] == real.json()["invalid_parameters"]
    assert strict["error"]["invalid_parameters"][0]["field"].startswith("logging")
    again = {"resources": [MESH, MTLS, MTLS]}
    same, first, second = (await api("POST", "/_dry-run", json=again)).json()["items"]
    assert [same["changed"], first["changed"], second["changed"]] == [False, True, False]
    assert "mtls" not in first["before"]
    assert first["after"]["mtls"]["enabledBackend"] == "ca-1"


async def test_who_may_not_write_may_not_ask(api: Api) -> None:  # noqa: F811
    nobody = await api("POST", "/_dry-run", "10.0.0.9", None, json={"resources": [PERMISSION]})
    assert nobody.status_code == 403
    bodies: tuple[Any, ...] = ({}, {"resources": {}}, {"resources": [MESH] * 1001})
    for wrong in bodies:
        assert (await api("POST", "/_dry-run", json=wrong)).status_code == 400
    (odd,) = (await api("POST", "/_dry-run", json={"resources": ["x"]})).json()["items"]
    assert odd["error"]["status"] == 400


async def test_no_keys_are_made_for_what_is_not_stored(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """Roots with large keys take seconds each, and so a hundred Meshes minutes."""
    made: list[int] = []
    monkeypatch.setattr(rsa, "generate_private_key", lambda exponent, size: made.append(size))
    backend = {"name": "ca-1", "type": "builtin", "conf": {"caCert": {"RSAbits": 4096}}}
    mtls = {"enabledBackend": "ca-1", "backends": [backend]}
    meshes = [{**MESH, "name": f"m{number}", "mtls": mtls} for number in range(20)]
    half = {**SECRET, "mesh": "m0", "name": "m0.ca-builtin-cert-ca-1", "data": base64.b64encode(b"none").decode()}
    asked = {"resources": [*meshes, half, *meshes]}
    items = (await api("POST", "/_dry-run", json=asked)).json()["items"]
    assert [item["created"] for item in items[:20]] == [True] * 20
    assert "would break mTLS backend" in str(items[20]["error"]), "as if the root were there"
    assert not any(item["changed"] for item in items[21:])
    assert (await api("PUT", "/meshes/m0?dryRun=All", json=meshes[0])).status_code == 201
    assert made == []


GUARDED: Mapping[str, Any] = {**MTLS, "labels": {"kuma.io/weakening": "refused"}}


def permission(name: str, source: str) -> Mapping[str, Any]:
    return {
        **PERMISSION, "name": name, "sources": [{"match": {"kuma.io/service": source}}],
        "destinations": [{"match": {"kuma.io/service": "db"}}],
    }  # fmt: skip


async def test_permissions_are_judged_with_what_comes_before_them(tmp_path: Path) -> None:
    """As when they are applied one after the other. Nothing of it stays but who wanted to weaken a guarded mesh."""
    plain = {**MESH, "labels": GUARDED["labels"]}
    db = codec.to_universal(dataplane("db-01", "db"))
    batch = [GUARDED, db, permission("a", "web"), permission("b", "api"), permission("everybody", "*")]
    async with running(tmp_path) as cp, httpx.AsyncClient(verify=NOBODY, trust_env=False, timeout=PATIENCE) as client:
        url = f"http://localhost:{await cp.api_port()}/_dry-run"
        await cp.apply_resource(codec.parse(plain))
        for _ in range(2):
            *_, first, second, everybody = (await client.post(url, json={"resources": batch})).json()["items"]
            assert not any("db" in warning for warning in first["warnings"]), "the Dataplane before it is seen"
            assert any('decides in place of "a" now' in warning for warning in second["warnings"])
            assert "refuses what weakens" in str(everybody["error"])
        refused = [line for line in audit_lines(tmp_path) if line["event"] == "weakening refused"]
        assert [(line["type"], line["name"]) for line in refused] == [("TrafficPermission", "everybody")] * 2


def audit_lines(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "audit.jsonl").read_text().splitlines()]


async def test_a_preview_is_of_a_bounded_number_of_meshes(api: Api) -> None:  # noqa: F811
    meshes = [{**MESH, "name": f"m{number}"} for number in range(17)]
    assert (await api("POST", "/preview", json={"resources": meshes[1:]})).status_code == 200
    refused = await api("POST", "/preview", json={"resources": meshes})
    assert (refused.status_code, refused.json()["invalid_parameters"][0]["field"]) == (400, "resources")
