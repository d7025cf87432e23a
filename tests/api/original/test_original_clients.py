"""Every command of the original's kumactl 2.7: the requests as that client sends them, the answers as it needs them.

What it needs is what it looks into without asking whether it is there, and what it parses: statuses, times in RFC 3339,
the `offset` in `next`, tokens as bare text, problems with a title.
"""

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import jwt
import pytest

from kuma.base.tls.trust import NOBODY
from tests.fakes.control_plane import ALLOW_ALL, MTLS, Running, dataplane, running
from tests.fakes.patience import PATIENCE

ZERO = "0001-01-01T00:00:00Z"
RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)")
KNOWN_TO_KUMACTL = {
    "Mesh", "Dataplane", "DataplaneInsight", "TrafficPermission", "MeshTrafficPermission", "Secret", "GlobalSecret",
    "TrafficRoute", "TrafficLog", "TrafficTrace", "Timeout", "Retry", "RateLimit", "CircuitBreaker", "FaultInjection",
    "HealthCheck", "ProxyTemplate", "VirtualOutbound", "ExternalService", "MeshGateway", "MeshGatewayRoute",
    "MeshTimeout", "MeshRetry", "MeshCircuitBreaker", "MeshHealthCheck", "MeshHTTPRoute", "MeshTCPRoute",
    "MeshLoadBalancingStrategy", "MeshAccessLog", "MeshTrace", "MeshMetric", "MeshRateLimit", "MeshFaultInjection",
    "MeshProxyPatch", "MeshService",
}  # fmt: skip
WEB, DB = dataplane("web-01", "web", calls=("db",)), dataplane("db-01", "db", port=81)
ANY = [{"match": {"kuma.io/service": "*"}}]
NETWORKING = {"address": "10.0.0.5", "inbound": [{"port": 8080, "servicePort": 80, "tags": {"kuma.io/service": "api"}}]}
FROM = [{"targetRef": {"kind": "MeshService", "name": "web"}, "default": {"action": "Allow"}}]
BACKENDS = {"enabledBackend": "ca-1", "backends": [{"name": "ca-1", "type": "builtin"}]}


class Kumactl:
    """Sends what Go's HTTP client sends for kumactl: no header but these."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http

    async def _send(self, method: str, path: str, headers: Mapping[str, str], body: Any = None) -> httpx.Response:
        request = self.http.build_request(method, path, json=body)
        kept = {name: request.headers[name] for name in ("host", "content-length") if name in request.headers}
        agent = {"user-agent": "kumactl/2.7.19 (linux; amd64; Kuma/1a2b3c4)", "accept-encoding": "gzip"}
        request.headers = httpx.Headers({**kept, **agent, **headers})
        return await self.http.send(request)

    async def resource(self, method: str, path: str, body: Any = None) -> httpx.Response:
        """Resources, lists of them, and `/_resources`."""
        content = {"content-type": "application/json"} if body is not None else {}
        return await self._send(method, path, {"accept": "application/json", **content}, body)

    async def inspect(self, path: str) -> httpx.Response:
        """The index, and what `inspect` asks for: no Accept header."""
        return await self._send("GET", path, {})

    async def token(self, path: str, body: Any) -> httpx.Response:
        """What `generate` asks for."""
        return await self._send("POST", path, {"content-type": "application/json"}, body)

    async def found(self, path: str) -> Any:
        """What an inspection finds."""
        answer = await self.inspect(path)
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture
async def cp(tmp_path: Path) -> AsyncIterator[Running]:
    async with running(tmp_path) as found:
        yield found


@pytest.fixture
async def kumactl(cp: Running) -> AsyncIterator[Kumactl]:
    async with httpx.AsyncClient(
        verify=NOBODY, base_url=f"http://localhost:{await cp.api_port()}", timeout=PATIENCE
    ) as http:
        yield Kumactl(http)


def is_time(text: str) -> bool:
    return bool(RFC3339.fullmatch(text)) and datetime.fromisoformat(text).year > 1


def problem(answer: httpx.Response, status: int, title: str) -> dict[str, str]:
    """What kumactl prints of a failure: title and detail, and a line for each field, which is returned."""
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert (answer.status_code, body["status"], body["title"]) == (status, status, title)
    assert body["type"] == "/std-errors"
    assert body["detail"] == body["details"]
    violations = body.get("invalid_parameters", [])
    assert [{"field": v["field"], "message": v["reason"]} for v in violations] == body.get("causes", [])
    return {v["field"]: v["reason"] for v in violations}


def items_of(answer: httpx.Response) -> tuple[Sequence[Mapping[str, Any]], int | None]:
    """The items of a list and the offset of the next page."""
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert set(body) == {"total", "items", "next"}
    assert isinstance(body["items"], list)
    assert isinstance(body["total"], int)
    for item in body["items"]:
        assert item["type"]
        assert item["name"]
        for field in ("creationTime", "modificationTime"):
            assert is_time(item[field])
    if body["next"] is None:
        return body["items"], None
    url = urlsplit(body["next"])
    assert url.scheme == "http"
    assert url.netloc.startswith("localhost:")
    return body["items"], int(parse_qs(url.query)["offset"][0])


async def test_version_and_the_handshake(kumactl: Kumactl) -> None:
    index = await kumactl.found("/")
    assert index["tagline"] == index["product"] == "Kuma"
    assert "preview" in index["version"]  # or every command of another version warns
    assert all(isinstance(index[field], str) for field in ("hostname", "instanceId", "clusterId", "gui"))


async def test_config_control_planes_add(kumactl: Kumactl) -> None:
    """Asks without a token what answers there; and a token that does not hold does not keep one from it."""
    assert (await kumactl.inspect("/")).status_code == 200
    with_token = await kumactl._send("GET", "/", {"authorization": "Bearer x"})
    assert with_token.status_code == 200


@dataclass(frozen=True)
class Kind:
    """One kind as `apply` sends it: the whole body, and what `delete` calls it."""

    path: str
    body: dict[str, Any]

    @property
    def whole(self) -> dict[str, Any]:
        """With the zero times that kumactl always sends."""
        meta: dict[str, Any] = {name: self.body[name] for name in ("type", "mesh", "name") if name in self.body}
        return {**meta, "creationTime": ZERO, "modificationTime": ZERO, **self.body}


def in_mesh(path: str, type: str, **content: Any) -> Kind:
    return Kind(f"/meshes/default/{path}/x", {"type": type, "mesh": "default", "name": "x", **content})


APPLIED = [
    Kind("/meshes/x", {"type": "Mesh", "name": "x"}),
    Kind("/meshes/x", {"type": "Mesh", "name": "x", "mtls": BACKENDS}),
    Kind("/meshes/x", {"type": "Mesh", "name": "x", "networking": {"outbound": {"passthrough": True}},
                       "skipCreatingInitialPolicies": ["*"]}),
    Kind("/global-secrets/x", {"type": "GlobalSecret", "name": "x", "data": "eA=="}),
    Kind("/globalsecrets/x", {"type": "GlobalSecret", "name": "x", "data": "eA=="}),
    in_mesh("secrets", "Secret", data="eA=="),
    in_mesh("dataplanes", "Dataplane", networking=NETWORKING),
    in_mesh("traffic-permissions", "TrafficPermission", sources=ANY, destinations=ANY),
    in_mesh("traffic-permissions", "TrafficPermission", sources=ANY, destinations=ANY, labels={"team": "a"}),
    in_mesh("meshtrafficpermissions", "MeshTrafficPermission", spec={"targetRef": {"kind": "Mesh"}, "from": FROM}),
]  # fmt: skip


async def test_apply_get_and_delete_of_every_kind(kumactl: Kumactl) -> None:
    for kind in APPLIED:
        assert (await kumactl.resource("GET", kind.path)).status_code == 404  # so kumactl creates
        created = await kumactl.resource("PUT", kind.path, kind.whole)
        assert created.status_code == 201, created.text
        assert isinstance(created.json().get("warnings", []), list)
        found = (await kumactl.resource("GET", kind.path)).json()
        assert {name: found[name] for name in kind.body} == kind.body
        assert is_time(found["creationTime"])
        assert is_time(found["modificationTime"])
        updated = await kumactl.resource("PUT", kind.path, {**found, "creationTime": ZERO, "modificationTime": ZERO})
        assert updated.status_code == 200, updated.text
        items, following = items_of(await kumactl.resource("GET", kind.path.rpartition("/")[0]))
        assert found["name"] in [item["name"] for item in items]
        assert following is None
        assert (await kumactl.resource("DELETE", kind.path)).status_code == 200
        problem(await kumactl.resource("DELETE", kind.path), 404, "Could not delete a resource")


async def test_apply_prints_warnings(kumactl: Kumactl) -> None:
    (applied,) = [kind for kind in APPLIED if kind.body["type"] == "MeshTrafficPermission"]
    said = (await kumactl.resource("PUT", applied.path, applied.whole)).json()
    assert "use MeshSubset with 'kuma.io/service' instead" in said["warnings"][0]


async def test_what_apply_cannot_do(kumactl: Kumactl) -> None:
    mesh = {"type": "Mesh", "name": "m", "creationTime": ZERO, "modificationTime": ZERO}
    wrong = {**mesh, "mtls": {"enabledBackend": "ca-2", "backends": []}}
    refused = problem(await kumactl.resource("PUT", "/meshes/m", wrong), 400, "Could not process a resource")
    assert "has to be set to one of the backends in the mesh" in refused["mtls.enabledBackend"]
    renamed = problem(await kumactl.resource("PUT", "/meshes/n", mesh), 400, "Could not process a resource")
    assert set(renamed) == {"name"}
    secret = {"type": "Secret", "mesh": "nowhere", "name": "s", "data": "eA=="}
    path = "/meshes/nowhere/secrets/s"
    assert (await kumactl.resource("GET", path)).status_code == 404
    problem(await kumactl.resource("PUT", path, secret), 404, "Failed to retrieve Mesh")
    identity = {"type": "MeshIdentity", "mesh": "default", "name": "i", "spec": {}}
    problem(await kumactl.resource("PUT", "/meshes/default/meshidentities/i", identity), 405, "Method not allowed")


async def test_policies_that_have_no_effect_are_applied_and_read_back(kumactl: Kumactl) -> None:
    timeout = {"type": "MeshTimeout", "mesh": "default", "name": "t", "spec": {"targetRef": {"kind": "Mesh"}}}
    path = "/meshes/default/meshtimeouts/t"
    assert (await kumactl.resource("PUT", path, timeout)).status_code == 201
    found = (await kumactl.resource("GET", path)).json()
    assert {name: found[name] for name in timeout} == timeout
    assert (await kumactl.resource("DELETE", path)).is_success


async def test_get_with_pages(kumactl: Kumactl) -> None:
    for name in ("m1", "m2"):
        await kumactl.resource("PUT", f"/meshes/{name}", {"type": "Mesh", "name": name})
    first, offset = items_of(await kumactl.resource("GET", "/meshes?size=2"))
    assert ([item["name"] for item in first], offset) == (["default", "m1"], 2)
    last, end = items_of(await kumactl.resource("GET", "/meshes?offset=2&size=2"))
    assert ([item["name"] for item in last], end) == (["m2"], None)
    wrong = await kumactl.resource("GET", "/meshes?size=2000")
    assert problem(wrong, 400, "Could not retrieve resources") == {
        "size": "invalid page size of 2000. Maximum page size is 1000"
    }
    everything, _ = items_of(await kumactl.resource("GET", "/meshes?size=0"))
    assert [mesh["name"] for mesh in everything] == ["default", "m1", "m2"]
    for query, reason in (("size", "invalid format"), ("offset", "Invalid format")):
        wrong = await kumactl.resource("GET", f"/meshes?{query}=many")
        assert problem(wrong, 400, "Could not retrieve resources") == {query: reason}
    problem(await kumactl.resource("GET", "/meshes/nowhere/dataplanes"), 404, "Failed to retrieve Mesh")


EMPTY = [
    "zone-ingresses", "zoneingresses", "zoneegresses", "meshes/default/traffic-routes",
    "meshes/default/health-checks", "meshes/default/external-services", "meshes/default/meshgateways",
    "meshes/default/meshgatewayroutes", "meshes/default/meshtimeouts", "meshes/default/meshhttproutes",
    "meshes/default/meshservices", "meshes/default/virtual-outbounds", "meshes/default/proxytemplates",
]  # fmt: skip


async def test_get_of_kinds_that_there_are_none_of(kumactl: Kumactl) -> None:
    for path in EMPTY:
        assert items_of(await kumactl.resource("GET", f"/{path}")) == ([], None)
        assert (await kumactl.resource("GET", f"/{path}/x")).status_code == 404


async def test_delete_of_what_is_in_use(cp: Running, kumactl: Kumactl) -> None:
    await cp.apply(MTLS)
    await cp.apply_resource(WEB)
    refused = problem(await kumactl.resource("DELETE", "/meshes/default"), 400, "Could not delete a resource")
    assert refused == {"mesh": "unable to delete mesh, there are still some dataplanes attached"}


@pytest.fixture
async def online(cp: Running) -> Running:
    """Two proxies that are connected, and one that has never been."""
    await cp.apply(MTLS, ALLOW_ALL)
    web, _ = await cp.proxy(WEB), await cp.proxy(DB)
    await web.until(lambda: web.certificate)
    await cp.settled(2)
    for described in (WEB, DB):
        await cp.insight(described, lambda insight: insight.mtls is not None)
    await cp.apply_resource(dataplane("db-02", "db"))
    return cp


INSPECTED = [
    "",
    "?tag=kuma.io%2Fservice%3Adb",
    "?gateway=true",
    "?ingress=true",
    "?gateway=true&ingress=true&tag=a%3Ab",
]


async def test_inspect_dataplanes(online: Running, kumactl: Kumactl) -> None:
    found = {}
    for query in INSPECTED:
        items, following = items_of(await kumactl.inspect(f"/meshes/default/dataplanes+insights{query}"))
        assert following is None
        found[query] = [item["name"] for item in items]
        for item in items:
            assert item["type"] == "DataplaneOverview"
            assert item["mesh"] == "default"
            assert item["dataplane"]["networking"]["inbound"]
            for subscription in item.get("dataplaneInsight", {}).get("subscriptions", ()):
                assert is_time(subscription["connectTime"])
                assert is_time(subscription["status"]["lastUpdateTime"])
                assert isinstance(subscription["status"]["total"]["responsesSent"], str)  # uint64 of protobuf
    assert [found[query] for query in INSPECTED[:3]] == [["db-01", "db-02", "web-01"], ["db-01", "db-02"], []]
    web = (await kumactl.found("/meshes/default/dataplanes+insights"))["items"][2]["dataplaneInsight"]
    assert is_time(web["mTLS"]["certificateExpirationTime"])
    assert is_time(web["mTLS"]["lastCertificateRegeneration"])
    assert (web["mTLS"]["issuedBackend"], web["mTLS"]["supportedBackends"]) == ("ca-1", ["ca-1"])


async def test_inspect_meshes_services_and_zones(online: Running, kumactl: Kumactl) -> None:
    await online.apply("{type: Mesh, name: empty}")
    meshes, _ = items_of(await kumactl.resource("GET", "/mesh-insights"))
    assert [mesh["dataplanes"] for mesh in meshes] == [{"total": 3, "online": 2, "offline": 1}, {}]
    assert [mesh["policies"].get("TrafficPermission", {}).get("total", 0) for mesh in meshes] == [1, 0]
    services, _ = items_of(await kumactl.inspect("/meshes/default/service-insights"))
    assert [service["status"] for service in services] == ["partially_degraded", "online"]
    assert services[0]["dataplanes"] == {"total": 2, "online": 1, "offline": 1}
    assert [(service["addressPort"], service["zones"]) for service in services] == [
        ("db.mesh:80", ["default"]), ("web.mesh:80", ["default"]),
    ]  # fmt: skip
    for path in ("/zones+insights", "/zones/_overview"):
        ((zone,), _) = items_of(await kumactl.inspect(path))
        assert (zone["type"], zone["name"], zone["zone"]) == ("ZoneOverview", "default", {"enabled": True})
        (subscription,) = zone["zoneInsight"]["subscriptions"]
        assert is_time(subscription["connectTime"])
        assert "disconnectTime" not in subscription
    ((zone,), _) = items_of(await kumactl.resource("GET", "/zones"))
    assert (zone["type"], zone["name"], zone["enabled"]) == ("Zone", "default", True)
    assert await kumactl.found("/zones/default") == zone
    problem(await kumactl.inspect("/zones/east/_overview"), 404, "Could not retrieve resources")
    for path in ("zoneingresses+insights", "zoneingresses/_overview", "zoneegressoverviews", "zoneegresses/_overview"):
        assert items_of(await kumactl.inspect(f"/{path}")) == ([], None)


async def test_inspect_dataplane_of_every_type(online: Running, kumactl: Kumactl) -> None:
    policies = await kumactl.found("/meshes/default/dataplanes/web-01/policies")
    assert policies["kind"] in ("", "SidecarDataplane")
    (item,) = policies["items"]
    assert (item["type"], item["name"], item["service"]) == ("inbound", "10.0.0.1:80:980", "web")
    (meta,) = item["matchedPolicies"]["TrafficPermission"]
    assert is_time(meta["creationTime"])
    config = "/meshes/default/dataplanes/web-01/_config"
    assert "xds" in await kumactl.found(f"{config}?shadow=false")
    for query in ("shadow=true", "shadow=true&include=diff"):
        problem(await kumactl.inspect(f"{config}?{query}"), 400, "Could not retrieve a resource")
    for path in (
        "xds",
        "stats",
        "clusters",
    ):  # of Envoys that are there: test_administration.py
        problem(await kumactl.inspect(f"/meshes/default/dataplanes/db-02/{path}"), 404, "Could not retrieve a resource")
        for zone_proxy in ("zoneingresses", "zoneegresses"):
            problem(await kumactl.inspect(f"/{zone_proxy}/z/{path}"), 404, "Could not retrieve a resource")


async def test_rules_of_a_dataplane(online: Running, kumactl: Kumactl) -> None:
    web = "targetRef: {kind: MeshService, name: web}"
    named = f"{{type: MeshTrafficPermission, mesh: default, name: %s, spec: {{{web}, %s}}}}"
    allow = "{targetRef: {kind: Mesh}, default: {action: Allow}}"
    deny = "{targetRef: {kind: MeshSubset, tags: {env: dev}}, default: {action: Deny}}"
    by_identity = '{default: {deny: [{spiffeID: {type: Exact, value: "spiffe://default/db"}}]}}'
    await online.apply(named % ("a", f"from: [{allow}, {deny}]"), named % ("b", f"from: [{allow}]"))
    await online.apply(named % ("c", f"rules: [{by_identity}]"))
    found = await kumactl.found("/meshes/default/dataplanes/web-01/_rules")
    assert (found["resource"]["type"], found["resource"]["name"], found["httpMatches"]) == ("Dataplane", "web-01", [])
    (rule,) = found["rules"]
    assert (rule["type"], rule["toRules"]) == ("MeshTrafficPermission", [])
    (inbound,) = rule["fromRules"]
    assert (inbound["inbound"]["port"], inbound["inbound"]["tags"]["kuma.io/zone"]) == (80, "default")
    assert [(r["matchers"], r["conf"]["action"], [o["name"] for o in r["origin"]]) for r in inbound["rules"]] == [
        ([{"key": "env", "value": "dev", "not": False}], "Deny", ["a"]),
        ([], "Allow", ["a", "b"]),
    ]
    (inbound,) = rule["inboundRules"]
    (said,) = inbound["rules"]
    assert said["conf"] == [{"deny": [{"spiffeID": {"type": "Exact", "value": "spiffe://default/db"}}]}]
    assert (said["origin"][0]["resourceMeta"]["name"], said["origin"][0]["ruleIndex"]) == ("c", 0)
    assert (await kumactl.found("/meshes/default/dataplanes/db-01/_rules"))["rules"] == []


async def test_inspect_policies(online: Running, kumactl: Kumactl) -> None:
    await online.apply(
        "{type: MeshTrafficPermission, mesh: default, name: m, spec: {targetRef: {kind: MeshService, name: web}, "
        "from: [{targetRef: {kind: Mesh}, default: {action: Allow}}]}}"
    )
    found = await kumactl.found("/meshes/default/meshtrafficpermissions/m/dataplanes")
    (affected,) = found["items"]
    assert (found["total"], affected["kind"]) == (1, "SidecarDataplane")
    assert affected["dataplane"] == {"mesh": "default", "name": "web-01"}
    assert affected["attachments"] == [{"type": "dataplane"}]
    inbound = (await kumactl.found("/meshes/default/traffic-permissions/allow-all/dataplanes"))["items"][0]
    assert inbound["attachments"] == [{"type": "inbound", "name": "10.0.0.1:81:981", "service": "db"}]
    for path in ("-resources", "_resources"):  # --new-api
        modern = await kumactl.found(f"/meshes/default/meshtrafficpermissions/m/{path}/dataplanes")
        assert (modern["total"], modern["items"]) == (1, [{"type": "Dataplane", "mesh": "default", "name": "web-01"}])
    for absent in ("meshgateways/g/dataplanes", "meshtimeouts/t/dataplanes", "meshtimeouts/t/-resources/dataplanes"):
        problem(await kumactl.inspect(f"/meshes/default/{absent}"), 404, "Could not retrieve a resource")


TAGS = {"kuma.io/service": ["web", "web-api"]}
TOKENS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("dataplane", {"name": "dp-1", "mesh": "default", "tags": TAGS, "type": "", "validFor": "720h0m0s"},
     {"Name": "dp-1", "Mesh": "default", "Tags": TAGS, "Type": ""}),
    ("dataplane", {"name": "", "mesh": "default", "tags": {}, "type": "dataplane", "validFor": "24h0m0s"},
     {"Name": "", "Mesh": "default", "Tags": {}, "Type": "dataplane"}),
    ("user", {"name": "john", "groups": ["team-a"], "validFor": "24h0m0s"}, {"Name": "john", "Groups": ["team-a"]}),
    ("user", {"name": "john", "groups": None, "validFor": "24h0m0s"}, {"Name": "john", "Groups": []}),
    ("user", {"name": "john", "validFor": "1h0m0s", "ofALaterVersion": True}, {"Name": "john", "Groups": []}),
]  # fmt: skip


async def test_generate_tokens(kumactl: Kumactl) -> None:
    for kind, body, claims in TOKENS:
        answer = await kumactl.token(f"/tokens/{kind}", body)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"].split(";")[0] == "text/plain"
        assert answer.text == answer.text.strip()
        assert jwt.get_unverified_header(answer.text) == {"alg": "RS256", "kid": "1", "typ": "JWT"}
        found = jwt.decode(answer.text, options={"verify_signature": False})
        assert {name: found[name] for name in claims} == claims
        assert {"exp", "nbf", "iat", "jti"} <= set(found)


REFUSED: list[tuple[str, dict[str, Any], set[str]]] = [
    ("dataplane", {"name": "x", "mesh": "", "tags": {}, "type": "", "validFor": "1h0m0s"}, {"mesh"}),
    ("dataplane", {"name": "x", "mesh": "default", "tags": {}, "type": "egress", "validFor": "1h0m0s"}, {"type"}),
    ("user", {"name": "", "groups": None, "validFor": ""}, {"name", "validFor"}),
    ("zone", {"zone": "east", "scope": ["ingress", "egress"], "validFor": "24h0m0s"}, {"zone"}),
]


async def test_tokens_that_are_not_generated(kumactl: Kumactl) -> None:
    for kind, body, fields in REFUSED:
        assert set(problem(await kumactl.token(f"/tokens/{kind}", body), 400, "Invalid request")) == fields
    unknown = {"name": "x", "mesh": "nowhere", "tags": {}, "type": "", "validFor": "1h0m0s"}
    problem(await kumactl.token("/tokens/dataplane", unknown), 404, "Signing Key not found")


async def test_export(cp: Running, kumactl: Kumactl) -> None:
    for kind in APPLIED:
        assert (await kumactl.resource("PUT", kind.path, kind.whole)).is_success
    listed = (await kumactl.resource("GET", "/_resources")).json()["resources"]
    assert {kind["name"] for kind in listed} <= KNOWN_TO_KUMACTL  # or it ends with `invalid resource type`
    assert next(kind for kind in listed if kind["name"] == "Mesh")["pluralDisplayName"] == "Meshes"
    meshes, _ = items_of(await kumactl.resource("GET", "/meshes"))
    for kind in listed:
        bases = [f"/meshes/{mesh['name']}" for mesh in meshes] if kind["scope"] == "Mesh" else [""]
        for base in bases:
            items, _ = items_of(await kumactl.resource("GET", f"{base}/{kind['path']}"))
            for item in items if kind["includeInFederation"] else ():
                url = f"{base}/{kind['path']}/{item['name']}?format=k8s"
                _kubernetes((await kumactl.resource("GET", url)).json(), item)


def _kubernetes(found: Mapping[str, Any], item: Mapping[str, Any]) -> None:
    """Where the Kubernetes form of each kind says to which mesh it belongs, and whether it lives in a namespace."""
    kind, metadata, mesh = item["type"], found["metadata"], item.get("mesh")
    assert metadata["name"] == item["name"]
    labelled = metadata.get("labels", {}).get("kuma.io/mesh")
    if kind in ("Secret", "GlobalSecret"):
        assert (found["apiVersion"], found["kind"], labelled) == ("v1", "Secret", mesh)
        assert metadata["namespace"] == "kuma-system"
        return
    assert (found["apiVersion"], found["kind"]) == ("kuma.io/v1alpha1", kind)
    if kind == "MeshTrafficPermission":
        assert (labelled, metadata["namespace"], "mesh" in found) == (mesh, "kuma-system", False)
        assert found["spec"] == item["spec"]
    else:
        assert (found.get("mesh"), "namespace" in metadata) == (mesh, False)


async def test_what_the_interface_and_scripts_ask_for(online: Running, kumactl: Kumactl) -> None:
    policies = (await kumactl.found("/policies"))["policies"]
    assert policies[0] == {
        "name": "MeshTrafficPermission", "readOnly": False, "path": "meshtrafficpermissions",
        "singularDisplayName": "Mesh Traffic Permission", "pluralDisplayName": "Mesh Traffic Permissions",
        "isExperimental": False, "isTargetRefBased": True, "isInbound": True, "isOutbound": False,
    }  # fmt: skip
    assert await kumactl.found("/status/zones") == [{"name": "default", "active": True}]
    whole = await kumactl.found("/global-insight")
    assert is_time(whole["createdAt"])
    assert whole["dataplanes"]["standard"] == {"online": 2, "offline": 1, "partiallyDegraded": 0, "total": 3}
    assert whole["services"]["internal"] == {"online": 1, "offline": 0, "partiallyDegraded": 1, "total": 2}
    assert (whole["meshes"]["total"], whole["policies"]["total"]) == (1, 1)
    assert whole["zones"]["controlPlanes"] == {"online": 1, "total": 1}
    totals = await kumactl.found("/global-insights")
    assert (totals["type"], totals["resources"]["Mesh"]) == ("GlobalInsights", {"total": 1})
    assert totals["resources"]["Zone"] == {"total": 1}


async def test_grants_of_the_original_for_stats_and_clusters(tmp_path: Path) -> None:
    nobody = {"users": [], "groups": ["nobody"]}
    access = {"static": {"view_stats": nobody, "view_clusters": nobody}}
    async with running(tmp_path, access=access) as cp:
        await cp.apply_resource(WEB)
        port = await cp.api_port()
        async with httpx.AsyncClient(verify=NOBODY, base_url=f"http://localhost:{port}", timeout=PATIENCE) as http:
            asked = Kumactl(http)
            for path in ("stats", "clusters"):
                problem(await asked.inspect(f"/meshes/default/dataplanes/web-01/{path}"), 403, "Access Denied")
            assert (await asked.inspect("/meshes/default/dataplanes/web-01/xds")).status_code == 404
