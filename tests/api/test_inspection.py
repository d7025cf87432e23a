"""What the API tells of a running mesh, asked as the original's clients ask."""

import json
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import grpc
import httpx
import jwt
import pytest

from kuma.base.tls.trust import NOBODY
from tests.fakes.control_plane import ALLOW_ALL, MTLS, Running, dataplane, running
from tests.fakes.patience import PATIENCE

WEB, DB = dataplane("web-01", "web", calls=("db",)), dataplane("db-01", "db", port=81)


class Client:
    """The API of a control plane that runs, from its own machine."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http

    async def __call__(self, path: str) -> Any:
        answer = await self.http.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture
async def cp(tmp_path: Path) -> AsyncIterator[Running]:
    async with running(tmp_path) as found:
        await found.apply(MTLS, ALLOW_ALL)
        web, _ = await found.proxy(WEB), await found.proxy(DB)
        await web.until(lambda: web.certificate)
        await found.settled(2)
        for described in (WEB, DB):
            await found.insight(described, lambda insight: insight.mtls is not None)
        yield found


@pytest.fixture
async def get(cp: Running) -> AsyncIterator[Client]:
    async with httpx.AsyncClient(
        verify=NOBODY, base_url=f"http://localhost:{await cp.api_port()}", timeout=PATIENCE
    ) as http:
        yield Client(http)


async def test_the_summary_of_a_mesh(cp: Running, get: Client) -> None:
    (found,) = (await get("/mesh-insights"))["items"]
    assert found == await get("/mesh-insights/default")
    assert (found["type"], found["name"]) == ("MeshInsight", "default")
    assert found["dataplanes"] == {"total": 2, "online": 2}
    assert found["policies"] == {"TrafficPermission": {"total": 1}}
    assert found["mTLS"]["issuedBackends"] == {"ca-1": {"total": 2, "online": 2}}
    assert found["services"] == {"total": 2, "internal": 2}


async def test_a_mesh_without_proxies_has_all_that_clients_look_into(cp: Running, get: Client) -> None:
    await cp.apply("{type: Mesh, name: empty}")
    found = await get("/mesh-insights/empty")
    assert (found["dataplanes"], found["policies"]) == ({}, {})
    assert (await get("/meshes/empty/service-insights"))["items"] == []


async def test_the_summaries_of_services(cp: Running, get: Client) -> None:
    await cp.parts.manager.put(dataplane("db-02", "db"))  # whose proxy has never connected
    db, web = (await get("/meshes/default/service-insights"))["items"]
    assert (db["name"], db["status"], db["dataplanes"]) == (
        "db", "partially_degraded", {"total": 2, "online": 1, "offline": 1},
    )  # fmt: skip
    assert (web["name"], web["status"], web["issuedBackends"]) == ("web", "online", {"ca-1": 1})
    assert (await get("/meshes/default/service-insights/web")) == web
    assert (await get.http.get("/meshes/default/service-insights/x")).status_code == 404


async def test_which_permission_acts_where(cp: Running, get: Client) -> None:
    found = await get("/meshes/default/dataplanes/web-01/policies")
    (item,) = found["items"]
    assert (found["kind"], item["type"], item["name"], item["service"]) == (
        "SidecarDataplane", "inbound", "10.0.0.1:80:980", "web",
    )  # fmt: skip
    (permission,) = item["matchedPolicies"]["TrafficPermission"]
    assert (permission["name"], permission["mesh"]) == ("allow-all", "default")
    attached = await get("/meshes/default/traffic-permissions/allow-all/dataplanes")
    assert [i["dataplane"]["name"] for i in attached["items"]] == ["db-01", "web-01"]
    assert attached["items"][1]["attachments"] == [{"type": "inbound", "name": "10.0.0.1:80:980", "service": "web"}]


async def test_a_mesh_permission_is_attached_to_the_dataplane(cp: Running, get: Client) -> None:
    item = "{targetRef: {kind: Mesh}, default: {action: Allow}}"
    await cp.apply(
        "{type: MeshTrafficPermission, mesh: default, name: m, "
        f"spec: {{targetRef: {{kind: MeshService, name: web}}, from: [{item}]}}}}"
    )
    (found,) = (await get("/meshes/default/dataplanes/web-01/policies"))["items"]
    assert (found["type"], list(found["matchedPolicies"])) == ("dataplane", ["MeshTrafficPermission"])
    for modern in ("_resources", "-resources"):
        acted = await get(f"/meshes/default/meshtrafficpermissions/m/{modern}/dataplanes")
        assert acted["items"] == [{"type": "Dataplane", "mesh": "default", "name": "web-01"}]
    assert (await get("/meshes/default/traffic-permissions/allow-all/dataplanes"))["total"] == 1  # db alone


async def test_a_mesh_permission_in_shadow_is_shown_and_changes_nothing(cp: Running, get: Client) -> None:
    wanted = "/meshes/default/dataplanes/web-01/_config"
    before = await get(wanted)
    await cp.apply(
        "{type: MeshTrafficPermission, mesh: default, name: m, labels: {kuma.io/effect: shadow}, "
        "spec: {targetRef: {kind: Mesh}, from: [{targetRef: {kind: Mesh}, default: {action: Deny}}]}}"
    )
    assert (await get("/meshes/default/meshtrafficpermissions/m/dataplanes"))["total"] == 2
    whole, inbound = (await get("/meshes/default/dataplanes/web-01/policies"))["items"]
    (shown,) = whole["matchedPolicies"]["MeshTrafficPermission"]
    assert shown["labels"] == {"kuma.io/effect": "shadow"}
    assert "TrafficPermission" in inbound["matchedPolicies"]
    assert await get(wanted) == before


async def test_the_configuration_of_a_proxy_holds_no_key(cp: Running, get: Client) -> None:
    found = await get.http.get("/meshes/default/dataplanes/web-01/_config")
    shown = found.json()["xds"]
    assert [name.rpartition(".")[2] for name in shown] == [
        "Cluster", "ClusterLoadAssignment", "Listener", "RouteConfiguration", "Secret",
    ]  # fmt: skip
    assert "outbound:127.0.0.1:20000" in shown["type.googleapis.com/envoy.config.listener.v3.Listener"]
    assert "PRIVATE KEY" not in found.text
    assert "private_key" not in found.text
    assert (await get.http.get("/meshes/default/dataplanes/nobody/_config")).status_code == 404


async def test_the_certificates_in_use(cp: Running, get: Client) -> None:
    db, web = (await get("/certificates"))["items"]
    assert (web["name"], web["spiffeIds"], web["backend"], web["reason"]) == (
        "web-01", ["spiffe://default/web"], "ca-1", "connected",
    )  # fmt: skip
    assert db == (await get("/meshes/default/certificates"))["items"][0]


async def test_every_certificate_and_change_is_on_record(cp: Running, get: Client, tmp_path: Path) -> None:
    (used,) = [item for item in (await get("/certificates"))["items"] if item["name"] == "web-01"]
    await get.http.put(
        "/meshes/default/secrets/s", json={"type": "Secret", "mesh": "default", "name": "s", "data": "eA=="}
    )
    token = (await get.http.post("/tokens/user", json={"name": "john", "validFor": "1h"})).text
    await get.http.get("/meshes/default/secrets/s")
    await get.http.get("/secrets")
    assert (await get.http.get("/meshes", headers={"authorization": "Bearer x"})).status_code == 401
    assert (await get.http.get("/secrets", headers={"authorization": f"Bearer {token}"})).status_code == 403
    assert (await (await cp.proxy(WEB, "x")).failure()).code == grpc.StatusCode.UNAUTHENTICATED
    text = (tmp_path / "audit.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    (issued,) = [line for line in lines if line.get("serial") == used["serial"]]
    assert issued["spiffeIds"] == ["spiffe://default/web"]
    assert (issued["proxy"], issued["authority"], issued["reason"]) == ("default.web-01", "ca-1", "connected")
    created = {(line["actor"], line["type"], line["name"]) for line in lines if line["event"] == "resource created"}
    assert ("mesh-system:admin/mesh-system:admin,mesh-system:authenticated", "Secret", "s") in created
    assert ("proxy default.web-01", "Dataplane", "web-01") in created
    (of_john,) = [line for line in lines if line["event"] == "token issued"]
    claims = jwt.decode(token, options={"verify_signature": False})
    assert (of_john["name"], of_john["jti"], of_john["kid"]) == ("john", claims["jti"], "1")
    assert datetime.fromisoformat(of_john["expires"]).timestamp() == claims["exp"]
    assert [line["name"] for line in lines if line["event"] == "secret read"] == ["s", ""]
    refused = [(line["server"], line.get("status"), line["address"]) for line in lines if line["event"] == "refused"]
    assert refused[:2] == [("API", 401, "127.0.0.1"), ("API", 403, "127.0.0.1")]
    assert refused[2][0] == "discovery"
    assert token not in text
    assert "PRIVATE KEY" not in text
    assert "eA==" not in text
    assert oct((tmp_path / "audit.jsonl").stat().st_mode)[-3:] == "600"


async def test_dataplanes_by_tag(get: Client) -> None:
    async def names(query: str) -> list[str]:
        path = f"/meshes/default/dataplanes+insights?{query}"
        return [item["name"] for item in (await get(path))["items"]]

    assert await names("tag=kuma.io%2Fservice%3Aweb") == ["web-01"]
    assert await names("tag=kuma.io%2Fservice%3Aweb&tag=kuma.io%2Fprotocol%3Agrpc") == []
    assert await names("tag=kuma.io%2Fservice%3A*") == ["db-01", "web-01"]
    assert await names("gateway=true") == []
    assert await names("ingress=true") == ["db-01", "web-01"]


async def test_kinds_that_are_not_here_have_empty_lists_and_cannot_be_written(get: Client) -> None:
    for path in ("/zoneingresses", "/zoneegressoverviews", "/meshes/default/traffic-routes", "/timeouts"):
        assert await get(path) == {"total": 0, "items": [], "next": None}
    assert (await get.http.get("/meshes/nowhere/timeouts")).status_code == 404
    assert (await get.http.get("/meshes/default/timeouts/t")).status_code == 404
    body = {"type": "MeshTLS", "mesh": "default", "name": "t", "spec": {}}
    refused = await get.http.put("/meshes/default/meshtlses/t", json=body)
    assert (refused.status_code, refused.json()["title"]) == (405, "Method not allowed")
    assert "not implemented" in refused.json()["detail"]
    assert "mtls.backends[].mode" in refused.json()["detail"]


async def test_what_the_control_plane_says_of_itself(get: Client) -> None:
    listed = (await get("/_resources"))["resources"]
    assert [kind["name"] for kind in listed] == sorted(kind["name"] for kind in listed)
    assert {"name": "Secret", "path": "secrets", "scope": "Mesh", "readOnly": False}.items() <= next(
        kind for kind in listed if kind["name"] == "Secret"
    ).items()
    for kind in listed:  # what is listed there, `kumactl export` lists
        base = "/meshes/default" if kind["scope"] == "Mesh" else ""
        assert "items" in await get(f"{base}/{kind['path']}")
    assert [p["name"] for p in (await get("/policies"))["policies"]] == ["MeshTrafficPermission", "TrafficPermission"]
    assert (await get("/config"))["apiServer"]["https"]["port"] == 0


async def test_a_store_has_one_name_for_ever(tmp_path: Path) -> None:
    async def name() -> str:
        async with (
            running(tmp_path) as cp,
            httpx.AsyncClient(
                verify=NOBODY, base_url=f"http://localhost:{await cp.api_port()}", timeout=PATIENCE
            ) as http,
        ):
            found: str = (await http.get("/")).json()["clusterId"]
            return found

    first = await name()
    assert len(first) == 36
    assert await name() == first
