"""Asking what would become of something: judged as ever, and nothing is stored."""

from collections.abc import Mapping
from typing import Any

from tests.api.test_api import MESH, PERMISSION, SECRET, Api, api, manager  # noqa: F401 - fixtures

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
