"""The REST API as its clients use it, over a real store."""

import json
import os
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from kuma.admission.mesh_rules import MeshRules
from kuma.admission.secret_rules import SecretRules
from kuma.api.app import create_app
from kuma.api.context import ApiContext, ApiSettings, Certificate, Connected, Tokens
from kuma.api.http import access_control
from kuma.api.http.access_control import LocalAdmins
from kuma.api.http.request_limits import RequestLimits
from kuma.base.clock import SystemClock
from kuma.resources import codec, kinds
from kuma.store.manager import ResourceManager
from kuma.store.sql.embedded.sqlite import open_sqlite
from kuma.tokens.user_tokens import UserTokens
from tests.fakes.patience import PATIENCE

JSON = {"content-type": "application/json"}
US = os.geteuid()
MESH: Mapping[str, Any] = {"type": "Mesh", "name": "default"}
SECRET: Mapping[str, Any] = {"type": "Secret", "mesh": "default", "name": "s", "data": "eA=="}
ANYBODY = [{"match": {"kuma.io/service": "*"}}]
PERMISSION: Mapping[str, Any] = {
    "type": "TrafficPermission", "mesh": "default", "name": "all", "sources": ANYBODY, "destinations": ANYBODY,
}  # fmt: skip
DATAPLANE: Mapping[str, Any] = {
    "type": "Dataplane",
    "mesh": "default",
    "name": "web-01",
    "networking": {
        "address": "10.0.0.1",
        "inbound": [{"port": 80, "servicePort": 8080, "tags": {"kuma.io/service": "web"}}],
    },
}


class Api:
    """A client of the application; `peer` is where it seems to call from, and `user` as whom."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(
        self, method: str, path: str, peer: str = "127.0.0.1", user: int | None = US, **more: Any
    ) -> httpx.Response:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await self.app({**scope, "state": {access_control.LOCAL_USER: user}}, receive, send)

        transport = httpx.ASGITransport(app, client=(peer, 4711), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost:5681", timeout=PATIENCE) as client:
            return await client.request(method, path, **more)

    async def put(self, body: Mapping[str, Any]) -> httpx.Response:
        kind = kinds.by_name(body["type"])
        mesh = f"/meshes/{body['mesh']}" if kind.in_mesh else ""
        return await self("PUT", f"{mesh}/{kind.path}/{body['name']}", content=json.dumps(body), headers=JSON)


async def issue(mesh: str, name: str, *_: Any) -> str:
    return f"token of {mesh} {name}"


@pytest.fixture
async def manager(tmp_path: Path) -> AsyncIterator[ResourceManager]:
    store = await open_sqlite(tmp_path / "kuma.db", SystemClock())
    yield ResourceManager(store, {"Mesh": MeshRules(SystemClock()), "Secret": SecretRules(SystemClock())})
    await store.close()


NOBODY, ALLOWED = Connected(), RequestLimits()


def application(
    manager: ResourceManager, connected: Connected = NOBODY, limits: RequestLimits = ALLOWED, **settings: Any
) -> Api:
    users = UserTokens(manager.store, SystemClock())

    async def verify(token: str) -> tuple[str, tuple[str, ...]]:
        user = await users.verify(token)
        return user.name, user.groups

    chosen = ApiSettings(**{"local_admins": LocalAdmins(frozenset({US})), **settings})
    context = ApiContext(
        manager=manager,
        instance="cp-1",
        settings=chosen,
        tokens=Tokens(issue=issue, issue_user=users.issue, verify=verify),
        connected=connected,
        limits=limits,
    )
    return Api(create_app(context))


@pytest.fixture
async def api(manager: ResourceManager) -> Api:
    found = application(manager)
    await found.put(MESH)
    return found


def complaints(answer: httpx.Response) -> dict[str, str]:
    body = answer.json()
    assert body["detail"] == body["details"]
    assert [c["message"] for c in body.get("causes", ())] == [p["reason"] for p in body.get("invalid_parameters", ())]
    return {p["field"]: p["reason"] for p in body.get("invalid_parameters", ())}


async def test_the_index_says_what_old_and_new_clients_look_for(api: Api) -> None:
    index = (await api("GET", "/", peer="10.0.0.9")).json()
    assert (index["tagline"], index["product"], index["instanceId"]) == ("Kuma", "Kuma", "cp-1")


@pytest.mark.parametrize("body", [SECRET, PERMISSION, DATAPLANE, {**MESH, "name": "other"}], ids=lambda b: b["type"])
async def test_the_life_of_a_resource(api: Api, body: Mapping[str, Any]) -> None:
    kind = kinds.by_name(body["type"])
    item = (f"/meshes/default/{kind.path}/" if kind.in_mesh else f"/{kind.path}/") + body["name"]
    assert (await api("GET", item)).status_code == 404
    created = await api.put(body)
    assert (created.status_code, created.json()) == (201, {})
    assert (await api.put(body)).status_code == 200
    found = (await api("GET", item)).json()
    assert {name: found[name] for name in body} == body
    assert found["creationTime"].endswith("Z")
    listed = (await api("GET", item.rpartition("/")[0])).json()
    assert found in listed["items"]
    deleted = await api("DELETE", item)
    assert (deleted.status_code, deleted.json()) == (200, {})
    missing = await api("DELETE", item)
    assert missing.status_code == 404
    assert missing.json()["title"] == "Could not delete a resource"


async def test_the_zero_times_of_old_clients_are_passed_over(api: Api) -> None:
    zero = {"creationTime": "0001-01-01T00:00:00Z", "modificationTime": "0001-01-01T00:00:00Z"}
    assert (await api.put({**PERMISSION, **zero})).status_code == 201
    assert not (await api("GET", "/meshes/default/traffic-permissions/all")).json()["creationTime"].startswith("0001")


async def test_warnings_come_with_the_answer(api: Api) -> None:
    mtls = {"enabledBackend": "ca-1", "backends": [{"name": "ca-1", "type": "builtin"}]}
    answer = await api.put({**MESH, "mtls": mtls})
    assert answer.status_code == 200
    assert "every call between its services is denied" in answer.json()["warnings"][0]
    assert (await api("GET", "/meshes/default")).json()["mtls"] == mtls


BACKEND = {"name": "ca-1", "type": "builtin"}


def backends(*found: Mapping[str, Any], enabled: str = "ca-1") -> Mapping[str, Any]:
    return {**MESH, "mtls": {"enabledBackend": enabled, "backends": list(found)}}


def ca_cert(**conf: Any) -> Mapping[str, Any]:
    return backends({**BACKEND, "conf": {"caCert": conf}})


def inbounds(*found: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**DATAPLANE, "networking": {"address": "10.0.0.1", "inbound": list(found)}}


WEB = {"port": 80, "servicePort": 8080, "tags": {"kuma.io/service": "web"}}


@pytest.mark.parametrize(
    ("body", "field", "reason"),
    [
        ({**MESH, "mtls": {"backend": []}}, "mtls.backend", "unknown field; did you mean backends?"),
        (ca_cert(expiration="1h30m"), "mtls.backends[0].conf.caCert.expiration", "one whole number and one unit"),
        (ca_cert(expiration="0s"), "mtls.backends[0].conf.caCert.expiration", "longer than 0"),
        (ca_cert(RSAbits=100), "mtls.backends[0].conf.caCert.RSAbits", "between 2048 and 8192"),
        (ca_cert(RSAbits=100000), "mtls.backends[0].conf.caCert.RSAbits", "between 2048 and 8192"),
        (backends(BACKEND, BACKEND), "mtls.backends[1].name", "already used for another backend"),
        (backends(BACKEND, enabled="ca-2"), "mtls.enabledBackend", "one of the backends in the mesh"),
        (backends({**BACKEND, "type": "vault"}), "mtls.backends[0].type", "Available types: builtin"),
        (inbounds({**WEB, "tags": {"kuma.io/service": "a:b"}}), 'networking.inbound[0].tags["kuma.io/service"]', ""),
        (inbounds(WEB, WEB), "networking.inbound[1].port", ""),
        (inbounds({**WEB, "port": "80"}), "networking.inbound[0].port", "whole number"),
        ({**SECRET, "data": "%%%"}, "data", "base64"),
        ({**PERMISSION, "sources": []}, "sources", "at least one element"),
    ],
)
async def test_bad_input_names_the_field_and_changes_nothing(
    api: Api, body: Mapping[str, Any], field: str, reason: str
) -> None:
    answer = await api.put(body)
    assert answer.status_code == 400, answer.text
    found = complaints(answer)
    assert reason in found[field]
    kind = kinds.by_name(body["type"])
    item = (f"/meshes/default/{kind.path}/" if kind.in_mesh else f"/{kind.path}/") + body["name"]
    after = await api("GET", item)
    assert "mtls" not in after.json() if kind.name == "Mesh" else after.status_code == 404
    secrets = (await api("GET", "/meshes/default/secrets")).json()["items"]
    assert [s["name"] for s in secrets] == ["dataplane-token-signing-key-default-1"]


@pytest.mark.parametrize(
    ("content", "status", "text"),
    [
        (b"{", 400, "is not valid JSON"),
        (b"[]", 400, "has to be a JSON object"),
        (b'{"type": "Mesh", "type": "Mesh"}', 400, "is given twice"),
        (b"[" * 100_000, 400, ""),
        (b'{"a": "' + b"x" * 10_000_000 + b'"}', 413, "longer than 1048576 bytes"),
        (b"\xff\xfe", 400, "is not valid JSON"),
    ],
    ids=["broken", "list", "twice", "deep", "10 MB", "binary"],
)
async def test_bodies_that_cannot_be_taken(api: Api, content: bytes, status: int, text: str) -> None:
    answer = await api("PUT", "/meshes/default", content=content, headers=JSON)
    assert answer.status_code == status
    assert text in answer.json()["detail"]


LABELS = {
    "team": {"": "a"},
    "half": {"\ud800": "x"},
    "value": {"x": "\ud800"},
    "space": {"x": "a b"},
    "long": {"x": "a" * 64},
    "dash": {"x-": "a"},
    "prefix": {"A/x": "a"},
    "slashes": {"a/b/c": "a"},
    "many": {f"l{i}": "" for i in range(101)},
}


@pytest.mark.parametrize("labels", LABELS.values(), ids=list(LABELS))
async def test_labels_have_the_syntax_of_kubernetes(api: Api, labels: dict[str, str]) -> None:
    answer = await api.put({**DATAPLANE, "labels": labels})
    assert answer.status_code == 400
    assert (await api("GET", "/dataplanes")).json()["total"] == 0


async def test_labels_that_are_as_they_should_be(api: Api) -> None:
    labels = {"kuma.io/origin": "zone", "team": "", "A.b_c-d": "X.1", f"{'a' * 63}.{'b' * 63}/{'c' * 63}": "d" * 63}
    assert (await api.put({**DATAPLANE, "labels": labels})).status_code == 201
    assert (await api("GET", "/dataplanes")).json()["items"][0]["labels"] == labels


async def test_what_was_stored_before_labels_had_rules_is_listed(api: Api, manager: ResourceManager) -> None:
    resource = codec.parse(DATAPLANE)
    await manager.put(replace(resource, labels={"x": "\ud800"}))
    assert (await api("GET", "/dataplanes")).json()["items"][0]["labels"] == {"x": "?"}


async def test_a_body_that_does_not_say_how_long_it_is(api: Api) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 100_000

    answer = await api("PUT", "/meshes/default", content=endless(), headers=JSON)
    assert answer.status_code == 413


async def test_other_content_types_are_refused(api: Api) -> None:
    answer = await api("PUT", "/meshes/default", content=b"type: Mesh", headers={"content-type": "text/yaml"})
    assert answer.status_code == 415


async def test_the_path_and_the_body_name_the_same(api: Api) -> None:
    answer = await api("PUT", "/meshes/default", json={**MESH, "name": "other"})
    assert complaints(answer) == {"name": "name from the URL has to be the same as in body"}
    answer = await api("PUT", "/meshes/default", json={**PERMISSION, "name": "default"})
    assert complaints(answer) == {"type": "type from the URL has to be the same as in body"}


async def test_a_mesh_that_does_not_exist(api: Api) -> None:
    for method, path in (("GET", "secrets"), ("GET", "dataplanes/x"), ("PUT", "dataplanes/x"), ("DELETE", "secrets/x")):
        answer = await api(method, f"/meshes/nowhere/{path}", json={})
        assert (answer.status_code, answer.json()["title"]) == (404, "Failed to retrieve Mesh")


async def test_a_mesh_with_dataplanes_is_not_deleted(api: Api) -> None:
    await api.put(DATAPLANE)
    answer = await api("DELETE", "/meshes/default")
    assert complaints(answer) == {"mesh": "unable to delete mesh, there are still some dataplanes attached"}


async def test_insights_are_written_by_the_control_plane_only(api: Api) -> None:
    answer = await api("PUT", "/meshes/default/dataplane-insights/web-01", json={})
    assert (answer.status_code, answer.json()["title"]) == (405, "Method not Allowed")


async def test_pages(api: Api) -> None:
    for name in ("a", "b", "c"):
        await api.put({**PERMISSION, "name": name})
    first = (await api("GET", "/meshes/default/traffic-permissions?size=2")).json()
    assert ([i["name"] for i in first["items"]], first["total"]) == (["a", "b"], 3)
    second = (await api("GET", first["next"])).json()
    assert ([i["name"] for i in second["items"]], second["next"]) == (["c"], None)
    assert (await api("GET", "/traffic-permissions?name=b")).json()["total"] == 1


@pytest.mark.parametrize("query", ["size=1001", "size=x", "offset=-1", "offset=x", "size=99999999999999"])
async def test_pages_that_there_cannot_be(api: Api, query: str) -> None:
    answer = await api("GET", f"/meshes?{query}")
    assert answer.status_code == 400
    assert set(complaints(answer)) == {query.partition("=")[0]}


async def test_the_overview_joins_a_dataplane_with_its_insight(api: Api) -> None:
    await api.put(DATAPLANE)
    for path in ("dataplanes+insights", "dataplanes/_overview"):
        (item,) = (await api("GET", f"/meshes/default/{path}")).json()["items"]
        assert (item["type"], item["dataplane"]) == ("DataplaneOverview", {"networking": DATAPLANE["networking"]})
        assert "dataplaneInsight" not in item
    one = (await api("GET", "/meshes/default/dataplanes+insights/web-01")).json()
    assert one["dataplaneInsight"] == {}


async def test_resources_in_kubernetes_form(api: Api) -> None:
    await api.put(PERMISSION)
    found = (await api("GET", "/meshes/default/traffic-permissions/all?format=k8s")).json()
    assert (found["kind"], found["mesh"], found["spec"]["sources"]) == ("TrafficPermission", "default", ANYBODY)


async def test_tokens(api: Api) -> None:
    answer = await api("POST", "/tokens/dataplane", json={"mesh": "default", "name": "web-01", "validFor": "720h0m0s"})
    assert (answer.status_code, answer.text) == (200, "token of default web-01")
    assert answer.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "mesh"),
        ({"mesh": "default", "validFor": "1x"}, "validFor"),
        ({"mesh": "default", "validFor": "999999h"}, "validFor"),
        ({"mesh": "default", "type": "ingress"}, "type"),
        ({"mesh": "default", "tags": ["x"]}, "tags"),
        ({"mesh": "default", "name": "A_b"}, "name"),
    ],
)
async def test_token_requests_that_make_no_sense(api: Api, body: Mapping[str, Any], field: str) -> None:
    answer = await api("POST", "/tokens/dataplane", json=body)
    assert answer.status_code == 400
    assert field in complaints(answer)


REMOTE = [
    ("GET", "/meshes"), ("GET", "/meshes/default"), ("PUT", "/meshes/default"), ("DELETE", "/meshes/default"),
    ("GET", "/secrets"), ("GET", "/meshes/default/secrets/s"), ("POST", "/tokens/dataplane"),
    ("GET", "/global-secrets"), ("GET", "/meshes/default/dataplanes+insights"), ("GET", "/meshes/nowhere/dataplanes"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path"), REMOTE)
async def test_a_remote_caller_gets_nothing(api: Api, method: str, path: str) -> None:
    answer = await api(method, path, peer="10.0.0.9", json=MESH)
    assert answer.status_code == 403
    assert "mesh-system:anonymous/mesh-system:unauthenticated" in answer.json()["detail"]


@pytest.mark.parametrize(
    "headers",
    [
        {"x-forwarded-for": "10.0.0.9"},
        {"X-Forwarded-Proto": "http"},
        {"Forwarded": "for=10.0.0.9"},
        {"via": "1.1 proxy"},
        {"x-real-ip": "127.0.0.1"},
        {"X-Client-IP": "10.0.0.9"},
        {"CF-Connecting-IP": "10.0.0.9"},
        {"True-Client-IP": "10.0.0.9"},
        {"X-Cluster-Client-Ip": "10.0.0.9"},
        {"Fastly-Client-IP": "10.0.0.9"},
        {"CDN-Loop": "cdn"},
        {"x_forwarded_for": "10.0.0.9"},
        {"Client-IP": "10.0.0.9"},
        {"X-Remote-IP": "10.0.0.9"},
        {"WL-Proxy-Client-IP": "10.0.0.9"},
        {"X-Originating-IP": "10.0.0.9"},
        {"x-envoy-expected-rq-timeout-ms": "15000"},
        {"host": "evil.example"},
        {"host": "[::2]:5681"},
        {"origin": "http://evil.example"},
        {"sec-fetch-site": "cross-site"},
    ],
    ids=lambda headers: next(iter(headers)),
)
async def test_being_on_this_machine_is_not_enough(api: Api, headers: dict[str, str]) -> None:
    """A proxy, a rebound name, or a script on another site's page may speak from here for somebody else."""
    assert (await api("GET", "/meshes/default/secrets", headers=headers)).status_code == 403


@pytest.mark.parametrize("host", ["localhost:5681", "evil.example"])
async def test_redirects_lead_to_paths_and_not_to_where_the_host_header_says(api: Api, host: str) -> None:
    answer = await api("GET", "/meshes/?size=5", headers={"host": host})
    assert (answer.status_code, answer.headers["location"]) == (307, "/meshes?size=5")


@pytest.mark.parametrize("peer", ["127.0.0.6", "::ffff:127.0.0.6"])
async def test_whoever_a_transparent_proxy_of_this_machine_speaks_for_is_not_on_it(api: Api, peer: str) -> None:
    """It calls what is not of the mesh from an address of its own, in whoever's name, and adds no header."""
    assert (await api("GET", "/meshes/default/secrets", peer=peer)).status_code == 403
    assert (await api("POST", "/tokens/dataplane", peer=peer, json={"mesh": "default"})).status_code == 403


async def test_a_credential_that_does_not_hold_is_401_even_from_here(api: Api) -> None:
    answer = await api("GET", "/meshes", headers={"authorization": "Bearer nonsense"})
    assert (answer.status_code, answer.json()["title"]) == (401, "Invalid authentication data")


async def test_localhost_can_be_nobody_special(manager: ResourceManager) -> None:
    api = application(manager, local_admins=LocalAdmins())
    assert (await api("GET", "/meshes")).status_code == 403


async def test_who_am_i(api: Api) -> None:
    assert (await api("GET", "/who-am-i")).json()["name"] == "mesh-system:admin"
    assert (await api("GET", "/who-am-i", peer="10.0.0.9")).json()["name"] == "mesh-system:anonymous"


async def test_an_unexpected_error_shows_nothing(manager: ResourceManager) -> None:
    async def broken() -> list[Certificate]:
        raise RuntimeError("the secret is hunter2")

    answer = await application(manager, Connected(certificates=broken))("GET", "/certificates")
    assert (answer.status_code, answer.json()["status"]) == (500, 500)
    assert "hunter2" not in answer.text
    assert "log has the cause under" in answer.json()["detail"]


async def test_every_kind_that_has_an_effect_is_described(api: Api) -> None:
    document = (await api("GET", "/openapi.json")).json()
    for kind in kinds.IN_EFFECT:
        assert kind.name in document["components"]["schemas"]
        path = f"/meshes/{{mesh}}/{kind.path}/{{name}}" if kind.in_mesh else f"/{kind.path}/{{name}}"
        assert ("put" in document["paths"][path]) == (not kind.read_only)


async def test_the_documentation_loads_nothing_from_elsewhere(api: Api) -> None:
    page = await api("GET", "/docs")
    loaded = re.findall(r"""(?:src|href)=["']([^"']+)["']""", page.text)
    assert loaded == ["/docs/swagger-ui.css", "data:,", "/docs/swagger-ui.js"]
    assert "http" not in page.text.replace("http-equiv", "")
    assert page.headers["content-security-policy"].startswith("default-src 'self'")
    assert "SwaggerUIBundle" in (await api("GET", "/docs/swagger-ui.js")).text
    assert (await api("GET", "/docs/swagger-ui.css")).headers["content-type"].startswith("text/css")


async def test_what_is_not_there(api: Api) -> None:
    for method, path in (("GET", "/nothing"), ("POST", "/bootstrap"), ("GET", "/meshes/default/nothing")):
        answer = await api(method, path)
        # The original's kuma-dp tells by this text that it has been given the wrong port.
        assert (answer.status_code, answer.text) == (404, "404: Page Not Found")
        assert answer.headers["content-type"].startswith("text/plain")


ROUTE = {"type": "MeshRetry", "mesh": "default", "name": "r", "spec": {"targetRef": {"kind": "Mesh"}, "to": []}}
TRACED = {**MESH, "tracing": {"defaultBackend": "z", "backends": [{"name": "z", "type": "zipkin"}]}}


@pytest.mark.parametrize("body", [TRACED, ROUTE])
async def test_what_has_no_effect_is_taken_with_a_warning_or_refused_if_strict(api: Api, body: dict[str, Any]) -> None:
    assert (await api.put(MESH)).status_code in (200, 201)
    kind = kinds.by_name(body["type"])
    path = f"/meshes/default/{kind.path}/{body['name']}" if kind.in_mesh else f"/{kind.path}/{body['name']}"
    refused = await api("PUT", f"{path}?strict=true", json=body)
    assert refused.status_code == 400
    assert "has no effect here" in refused.text
    assert body["type"] == "Mesh" or (await api("GET", path)).status_code == 404
    taken = await api("PUT", path, json=body)
    assert taken.status_code in (200, 201)
    assert any("has no effect here" in warning for warning in taken.json()["warnings"])
    found = (await api("GET", path)).json()
    assert {name: found[name] for name in body} == body


@pytest.mark.parametrize("path", ["/meshes/default/secrets", "/docs", "/nothing", "/meshes/nothing", "/"])
async def test_browsers_keep_nothing_and_show_nothing_in_pages_of_others(api: Api, path: str) -> None:
    """A page of another site, with `/docs` in a frame, would have this machine's administrator press its buttons."""
    headers = (await api("GET", path)).headers
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["x-frame-options"] == "DENY"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
