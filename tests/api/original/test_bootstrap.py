"""`/bootstrap` as the original's kuma-dp asks for it, over TLS, of a control plane that runs."""

import base64
import contextlib
import json
import sqlite3
import ssl
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from kuma.agent.bootstrap_client import request_body, with_token
from kuma.agent.token_source import TokenSource
from kuma.agent.workload import Workload
from kuma.app.serving import server_certificate
from kuma.resources import codec
from kuma.xds.bootstrap.server_names import ServerNames, Unverifiable
from tests.fakes.control_plane import Running, dataplane, running
from tests.fakes.patience import PATIENCE

WEB = dataplane("web-01", "web")


class Asking:
    """What kuma-dp 2.7 sends: HTTP/1.1, JSON, the token in the body, null for what it has not."""

    def __init__(self, cp: Running, http: httpx.AsyncClient) -> None:
        self.cp, self.http = cp, http

    def body(self, **changes: Any) -> dict[str, Any]:
        version = {"version": "2.7.19", "gitTag": "2.7.19", "gitCommit": "abc", "buildDate": "today"}
        whole = {
            "mesh": "default",
            "name": "web-01",
            "proxyType": "dataplane",
            "dataplaneToken": self.cp.token(),
            "dataplaneTokenPath": "/run/token",
            "dataplaneResource": json.dumps(codec.to_universal(WEB)),
            "version": {"kumaDp": version, "envoy": {"version": "1.29.9", "build": "", "kumaDpCompatible": True}},
            "caCert": self.cp.ca_pem.decode(),
            "dynamicMetadata": {"version.dependencies.coredns": "1.11.1", "other": "x"},
            "dnsPort": 15054,
            "readinessPort": 9902,
            "emptyDnsPort": 15055,
            "operatingSystem": "linux",
            "features": ["feature-tcp-accesslog-via-named-pipe"],
            "resources": {"maxHeapSizeBytes": 0},
            "workdir": "/tmp/kuma-dp-1",
            "accessLogSocketPath": "/tmp/a.sock",
            "metricsResources": {"socketPath": "", "certPath": "", "keyPath": ""},
            "ipv6Enabled": True,
        }
        return {**whole, **changes}

    async def __call__(self, method: str = "POST", *, host: str = "localhost", **changes: Any) -> httpx.Response:
        headers = {"accept": "application/json", "content-type": "application/json", "host": host}
        return await self.http.request(method, "/bootstrap", json=self.body(**changes), headers=headers)


@pytest.fixture
async def ask(tmp_path: Path) -> AsyncIterator[Asking]:
    async with running(tmp_path) as cp:
        url = f"https://localhost:{await cp.parts.dp.port()}"
        trust = ssl.create_default_context(cafile=tmp_path / "ca.crt")
        async with httpx.AsyncClient(base_url=url, verify=trust, timeout=PATIENCE) as http:
            yield Asking(cp, http)


def bootstrap(answer: httpx.Response) -> Mapping[str, Any]:
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    found: Mapping[str, Any] = json.loads(base64.b64decode(answer.json()["bootstrap"]))
    return found


async def test_what_kuma_dp_says_of_itself_becomes_part_of_the_node(ask: Asking) -> None:
    found = bootstrap(await ask())
    metadata = found["node"]["metadata"]
    assert (found["node"]["id"], found["node"]["cluster"]) == ("default.web-01", "web")
    assert metadata["dynamicMetadata"] == {"version.dependencies.coredns": "1.11.1", "other": "x"}
    assert metadata["features"] == ["feature-tcp-accesslog-via-named-pipe"]
    assert metadata["workdir"] == "/tmp/kuma-dp-1"
    assert metadata["version"]["kumaDp"]["version"] == "2.7.19"
    assert found["admin"]["address"]["socketAddress"]["portValue"] == 9901


def types_of(value: Any) -> set[str]:
    """The types of all messages that a JSON document names."""
    if isinstance(value, list):
        return set().union(*map(types_of, value))
    if not isinstance(value, dict):
        return set()
    own = {value["@type"].rpartition("/")[2]} if "@type" in value else set()
    return own.union(*map(types_of, value.values()))


async def test_there_is_nothing_in_it_that_the_originals_client_cannot_decode(ask: Asking) -> None:
    """It reads the bootstrap as protobuf JSON: a message of a type that is not linked into it would end it."""
    assert types_of(bootstrap(await ask())) == {
        "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
    }


async def test_a_proxy_accepts_a_bounded_number_of_connections(ask: Asking) -> None:
    (layer,) = bootstrap(await ask())["layeredRuntime"]["layers"]
    assert layer["staticLayer"] == {"overload.global_downstream_max_connections": 50_000}


async def test_our_own_client_takes_the_bound_in_the_form_of_which_newer_envoys_do_not_warn(ask: Asking) -> None:
    body = request_body(
        Workload("default", "web-01", TokenSource(ask.cp.token()), WEB), ask.cp.ca_pem.decode(), "1.40.0"
    )
    answer = await ask.http.post("/bootstrap", json=dict(body), headers={"accept": "application/json"})
    found = bootstrap(answer)
    assert "layeredRuntime" not in found
    (monitor,) = found["overloadManager"]["resourceMonitors"]
    assert monitor["typedConfig"]["maxActiveDownstreamConnections"] == "50000"


async def test_our_own_client_gets_no_token_and_puts_it_into_a_secret(ask: Asking) -> None:
    token = ask.cp.token()
    described = Workload("default", "web-01", TokenSource(token), WEB)
    body = request_body(described, ask.cp.ca_pem.decode(), "1.40.0")
    answer = await ask.http.post("/bootstrap", json=dict(body), headers={"accept": "application/json"})
    found = bootstrap(answer)
    assert token not in json.dumps(found)
    complete = json.loads(with_token(json.dumps(found).encode(), token))
    (secret,) = complete["staticResources"]["secrets"]
    assert secret["genericSecret"] == {"secret": {"inlineString": token}}
    older = bootstrap(await ask())  # a control plane that puts it elsewhere
    assert json.loads(with_token(json.dumps(older).encode(), token)) == older


async def test_dependencies_of_kuma_dp_are_shown_in_the_insight(ask: Asking) -> None:
    node = bootstrap(await ask())["node"]
    proxy = await ask.cp.proxy(WEB)
    await proxy.disconnect()
    proxy.node.metadata.update(node["metadata"])
    proxy.connect(await ask.cp.channel())
    found = await ask.cp.insight(WEB, lambda i: i.subscriptions[-1].version.dependencies)
    assert found.to_wire()["subscriptions"][-1]["version"]["dependencies"] == {"coredns": "1.11.1"}
    await proxy.disconnect()


async def test_the_address_of_a_dataplane_that_is_stored(ask: Asking) -> None:
    await ask.cp.apply_resource(WEB)
    for brought in (None, "", json.dumps(codec.to_universal(WEB))):
        networking = (await ask(dataplaneResource=brought)).json()["kumaSidecarConfiguration"]["networking"]
        assert networking == {"isUsingTransparentProxy": False, "corefileTemplate": None, "address": "10.0.0.1"}


@pytest.mark.parametrize("method", ["POST", "PUT", "GET"])
async def test_any_method_will_do(ask: Asking, method: str) -> None:
    assert bootstrap(await ask(method))["node"]["id"] == "default.web-01"


async def test_what_is_null_is_not_there(ask: Asking) -> None:
    answer = await ask(dynamicMetadata=None, features=None, resources=None, metricsResources=None, workdir=None)
    assert "dynamicMetadata" not in bootstrap(answer)["node"]["metadata"]


async def test_without_asking_for_json_there_is_the_bootstrap_alone(ask: Asking) -> None:
    answer = await ask.http.post("/bootstrap", json=ask.body())
    assert answer.headers["content-type"].startswith("text/x-yaml")
    assert json.loads(answer.text)["node"]["id"] == "default.web-01"


async def test_a_name_that_the_certificate_does_not_have(ask: Asking) -> None:
    answer = await ask(host="cp.example:5678")
    assert (answer.status_code, answer.headers["content-type"].split(";")[0]) == (400, "text/plain")
    assert answer.text.startswith('this control plane was reached as "cp.example", but its certificate is for local')
    for host in ("127.0.0.1:5678", "[::1]:5678", "LOCALHOST"):
        assert (await ask(host=host)).status_code == 200


async def test_what_is_no_certificate_of_a_ca(ask: Asking, tmp_path: Path) -> None:
    for wrong in ((tmp_path / "tls.crt").read_text(), "nonsense"):
        answer = await ask(caCert=wrong)
        assert answer.status_code == 400
        assert "caCert (--ca-cert-file) holds no certificate of a CA" in answer.text
    validation = bootstrap(await ask(caCert=None))["staticResources"]["clusters"][0]["transportSocket"]["typedConfig"]
    own = validation["commonTlsContext"]["validationContext"]["trustedCa"]["inlineBytes"]
    assert base64.b64decode(own) == ask.cp.ca_pem


@pytest.mark.parametrize(
    ("content", "text"),
    [(b"{", "is not valid JSON"), (b"", "is not valid JSON"), (b"[]", "JSON object"), (b'{"mesh": 1}', "mesh of the")],
)
async def test_what_is_malformed_is_400(ask: Asking, content: bytes, text: str) -> None:
    answer = await ask.http.post("/bootstrap", content=content)
    assert (answer.status_code, answer.headers["content-type"].split(";")[0]) == (400, "text/plain")
    assert text in answer.text


async def test_what_cannot_be_answered_is_422_or_404(ask: Asking) -> None:
    assert "Dataplane Token is required" in (await ask(dataplaneToken=" ")).text
    answer = await ask(mesh="nowhere", dataplaneResource="")
    assert (answer.status_code, answer.text) == (422, 'mesh: mesh "nowhere" does not exist')
    assert (await ask(name="nobody", dataplaneResource="")).status_code == 404  # kuma-dp tries again


async def test_other_errors_of_the_server_have_the_one_shape(ask: Asking) -> None:
    for answer, status in ((await ask.http.get("/nowhere"), 404), (await ask.http.request("TRACE", "/bootstrap"), 405)):
        assert (answer.status_code, answer.json()["status"], answer.json()["type"]) == (status, status, "/std-errors")


@pytest.mark.parametrize(
    "damage", ['spec = \'{"networking": "hunter2"}\'', "creation_time = x'00'", "labels = 'hunter2'"]
)
async def test_a_damaged_store_shows_nothing(ask: Asking, tmp_path: Path, damage: str) -> None:
    await ask.cp.apply_resource(WEB)
    with contextlib.closing(sqlite3.connect(tmp_path / "kuma.db")) as database, database:
        database.execute(f"update resources set {damage} where name = 'web-01'")
    answer = await ask(dataplaneResource="")
    detail = 'Dataplane "web-01" in mesh "default" is stored in a form that this version does not understand'
    whole = {"type": "/std-errors", "status": 500, "title": "Request failed", "detail": detail, "details": detail}
    assert (answer.status_code, answer.json()) == (500, whole)


def test_names_of_certificates(tmp_path: Path) -> None:
    files = server_certificate.ensure(tmp_path, ("*.example.com", "10.0.0.1"), datetime.now(UTC))
    names = ServerNames.of(files.chain.read_bytes(), files.ca.read_bytes())
    for host in ("cp.example.com", "10.0.0.1"):
        assert names.ca_for(host, b"") == files.ca.read_bytes()
    for host in ("example.com", "a.b.example.com", "10.0.0.2", "cp.example.org"):
        with pytest.raises(Unverifiable, match="is for"):
            names.ca_for(host, b"")
    with pytest.raises(Unverifiable, match="KUMA_GENERAL_TLS_CA_FILE"):
        ServerNames(names.names, files.chain.read_bytes()).ca_for("10.0.0.1", b"")


async def test_who_is_refused_is_on_record(ask: Asking, tmp_path: Path) -> None:
    """Somebody who tries tokens out begins here."""
    db = dataplane("web-01", "db")
    assert (await ask(dataplaneToken="nonsense")).status_code == 422
    assert (await ask(dataplaneToken=ask.cp.token(service="db"))).status_code == 422
    await ask.cp.apply_resource(WEB)
    token, brought = ask.cp.token(service="db"), json.dumps(codec.to_universal(db))
    assert (await ask(dataplaneToken=token, dataplaneResource=brought)).status_code == 422
    for said, status in (("nonsense", 401), (token, 403)):
        asked = {"mesh": "default", "name": "web-01", "dataplaneToken": said}
        assert (await ask.http.post("/withdraw", json=asked)).status_code == status
    assert (await ask(dataplaneResource="{}")).status_code == 422  # a mistake, and no refusal
    text = (tmp_path / "audit.jsonl").read_text()
    found = [line for line in map(json.loads, text.splitlines()) if line["event"] == "refused"]
    assert [line["path"] for line in found] == ["/bootstrap"] * 3 + ["/withdraw"] * 2
    assert {(line["server"], line["address"]) for line in found} == {("data plane", "127.0.0.1")}
    assert "is not allowed with this token" in found[-1]["reason"]
    assert token not in text


async def test_a_dataplane_of_many_thousand_ports_is_not_even_looked_at(ask: Asking) -> None:
    """Anybody may send one, and what is done with it holds everybody else up."""
    inbounds = [{"port": port} for port in range(1, 25_000)]
    brought = {"type": "Dataplane", "mesh": "default", "name": "web-01", "networking": {"inbound": inbounds}}
    answer = await ask(dataplaneResource=json.dumps(brought), dataplaneToken="x")
    assert answer.status_code == 422
    assert answer.text == "dataplaneResource: is not a Dataplane in JSON: it has more than 20000 values"
