"""No inbound leads to what trusts its callers because they are on the same machine."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

import grpc
import httpx
import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.listener.v3 import listener_pb2

from kuma.base.tls.trust import NOBODY
from kuma.resources import codec
from kuma.xds.envoy import resource_names
from kuma.xds.envoy.resource import TypeUrl
from kuma.xds.proxies.proxy import Proxy
from tests.fakes.control_plane import Running
from tests.fakes.patience import PATIENCE
from tests.fakes.proxy import FakeProxy


def body(name: str = "web-01", address: str = "10.0.0.1", **inbound: Any) -> dict[str, Any]:
    tags = {"kuma.io/service": "web"}
    inbounds = [{"port": 80, "servicePort": 8080, "tags": tags, **inbound}]
    return {
        "type": "Dataplane", "mesh": "default", "name": name, "networking": {"address": address, "inbound": inbounds},
    }  # fmt: skip


async def put(cp: Running, dataplane: dict[str, Any]) -> httpx.Response:
    """As a user who is no administrator."""
    token = await cp.parts.users.issue("john", ["team"], timedelta(hours=1))
    base = f"http://127.0.0.1:{await cp.api_port()}"
    async with httpx.AsyncClient(
        base_url=base, headers={"authorization": f"Bearer {token}"}, timeout=PATIENCE
    ) as client:
        return await client.put(f"/meshes/default/dataplanes/{dataplane['name']}", json=dataplane)


async def own_ports(cp: Running) -> list[int]:
    servers = [*cp.parts.api.values(), cp.parts.dp, cp.parts.diagnostics]
    return [*[await server.port() for server in servers], await cp.parts.xds.port()]


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "0.0.0.0", "::1", "::", "::ffff:127.0.0.1"])
async def test_no_inbound_leads_to_what_trusts_this_machine(cp: Running, address: str) -> None:
    for port in await own_ports(cp):
        answer = await put(cp, body(serviceAddress=address, servicePort=port))
        assert answer.status_code == 400
        assert "this control plane's own" in answer.json()["invalid_parameters"][0]["reason"]
    assert (await put(cp, body(serviceAddress=address, servicePort=9901))).status_code == 400
    assert (await put(cp, body(serviceAddress=address, servicePort=9902))).status_code == 201


async def test_http_that_is_served_as_tcp_is_warned_of_unless_somebody_has_said_so(cp: Running) -> None:
    service = {"kuma.io/service": "web"}
    for number, (tags, port, behind, warned) in enumerate((
        ({}, 80, 9000, True),
        ({}, 9001, 8080, True),
        ({}, 5432, 15432, False),
        ({"kuma.io/protocol": "tcp"}, 80, 8080, False),
        ({"kuma.io/protocol": "http"}, 80, 8080, False),
    )):  # fmt: skip
        described = body(name=f"web-{number}", tags={**service, **tags}, port=port, servicePort=behind)
        said = (await put(cp, described)).json().get("warnings", [])
        assert bool(said) == warned, (tags, port)
        assert all("networking.inbound[0]" in text and "x-forwarded-client-cert" in text for text in said)
    again = (await put(cp, body(name="web-0", port=80, servicePort=9000))).json()
    assert not again.get("warnings"), "once is enough"


async def test_no_client_is_sent_there_either(cp: Running) -> None:
    api = await cp.api_port()
    assert (await put(cp, body(address="127.0.0.1", port=api))).status_code == 400
    advertised = body(port=api)
    advertised["networking"]["advertisedAddress"] = "127.0.0.1"
    assert (await put(cp, advertised)).status_code == 400
    assert (await put(cp, body(port=api))).status_code == 201  # on another machine that port is anybody's


async def test_no_proxy_brings_such_an_inbound_along(cp: Running) -> None:
    api = await cp.api_port()
    for port in (api, 9901):
        proxy = FakeProxy("default.web-01", cp.token())
        document = body(serviceAddress="127.0.0.1", servicePort=port)
        proxy.node.metadata.update({"dataplane.resource": json.dumps(document)})
        proxy.connect(await cp.channel())
        assert (await proxy.failure()).code == grpc.StatusCode.INVALID_ARGUMENT
        assert len(cp.parts.proxies) == 0


async def test_the_administration_is_where_the_envoy_runs_whatever_its_dataplane_says(cp: Running) -> None:
    proxy = FakeProxy("default.web-01", cp.token(), codec.parse(body()))
    proxy.node.metadata.update({"dataplane.admin.port": "9901"})
    proxy.connect(await cp.channel())
    await cp.settled(1)
    for name in ("web-01", "neighbour"):
        lying = body(name, serviceAddress="127.0.0.1", servicePort=9901)
        lying["networking"]["admin"] = {"port": 9999}
        answer = await put(cp, lying)
        assert answer.status_code == 400
        assert "is the administration of an Envoy" in answer.json()["invalid_parameters"][0]["reason"]
    elsewhere = body("elsewhere", "10.0.0.2", serviceAddress="127.0.0.1", servicePort=9901)
    elsewhere["networking"]["admin"] = {"port": 9999}
    assert (await put(cp, elsewhere)).status_code == 201
    await proxy.disconnect()


def administration(proxy: FakeProxy) -> set[int]:
    """The ports that the listener in front of its administration is at and leads to."""
    listener = listener_pb2.Listener.FromString(proxy.held[TypeUrl.LISTENER][resource_names.ADMIN].value)
    cluster = cluster_pb2.Cluster.FromString(proxy.held[TypeUrl.CLUSTER][resource_names.ADMIN].value)
    endpoint = cluster.load_assignment.endpoints[0].lb_endpoints[0].endpoint
    return {listener.address.socket_address.port_value, endpoint.address.socket_address.port_value}


async def test_the_listener_leads_to_where_the_envoy_was_started(cp: Running) -> None:
    proxy = FakeProxy("default.web-01", cp.token(), codec.parse(body()))
    proxy.node.metadata.update({"dataplane.admin.port": "9901"})
    proxy.connect(await cp.channel())
    await proxy.until(lambda: resource_names.ADMIN in proxy.held[TypeUrl.LISTENER])
    assert administration(proxy) == {9901}
    changed = body(port=81)
    changed["networking"]["admin"] = {"port": 6379}
    assert (await put(cp, changed)).status_code == 200
    await proxy.until(lambda: "inbound:10.0.0.1:81" in proxy.held[TypeUrl.LISTENER])
    assert administration(proxy) == {9901}
    changed["networking"]["outbound"] = [
        {"address": "10.0.0.1", "port": 9901, "tags": {"kuma.io/service": "web"}},
    ]
    assert (await put(cp, changed)).status_code == 200
    await proxy.until(lambda: "outbound:10.0.0.1:9901" in proxy.held[TypeUrl.LISTENER])
    await proxy.until(lambda: resource_names.ADMIN not in proxy.held[TypeUrl.LISTENER])  # two cannot be at one place
    await proxy.disconnect()


async def test_a_proxy_that_does_not_say_where_its_administration_is_has_no_listener_for_it(cp: Running) -> None:
    proxy = FakeProxy("default.web-01", cp.token(), codec.parse(body()))
    proxy.connect(await cp.channel())
    await proxy.until(lambda: "inbound:10.0.0.1:80" in proxy.held[TypeUrl.LISTENER])
    assert resource_names.ADMIN not in proxy.held[TypeUrl.LISTENER]
    await proxy.disconnect()


@contextlib.asynccontextmanager
async def administered(
    cp: Running, answer: Callable[[Any, Any], Awaitable[None]], address: str = "127.0.0.1"
) -> AsyncIterator[tuple[Proxy, httpx.AsyncClient]]:
    """A connected proxy of this address whose administration is what `answer` answers, and a client of the API."""
    server = await asyncio.start_server(answer, "0.0.0.0", 0)  # at all names of this machine
    proxy = FakeProxy("default.web-01", cp.token(), codec.parse(body(address=address)))
    proxy.node.metadata.update({"dataplane.admin.port": str(server.sockets[0].getsockname()[1])})
    proxy.connect(await cp.channel())
    await cp.settled(1)
    async with httpx.AsyncClient(
        verify=NOBODY, base_url=f"http://127.0.0.1:{await cp.api_port()}", timeout=PATIENCE
    ) as client:
        yield next(iter(cp.parts.proxies)), client
    await proxy.disconnect()
    server.close()
    await server.wait_closed()


async def test_a_proxy_of_another_machine_has_nothing_called_on_this_one(cp: Running) -> None:
    called = []

    async def answer(reader: Any, writer: Any) -> None:
        called.append(await reader.readline())
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")
        writer.close()

    async with administered(cp, answer) as (connected, client):
        for host, status in (("192.0.2.1", 503), (connected.host, 200)):
            connected.host = host  # there is no other machine here
            assert (await client.get("/meshes/default/dataplanes/web-01/stats")).status_code == status
            assert len(called) == (status == 200)


@pytest.mark.parametrize("address", ["127.0.0.2", "::ffff:127.0.0.1"])
async def test_nor_at_another_name_of_this_machine(cp: Running, address: str) -> None:
    called = []

    async def answer(reader: Any, writer: Any) -> None:
        called.append(await reader.read(1))
        writer.close()

    async with administered(cp, answer, address) as (connected, client):
        connected.host = "192.0.2.1"
        assert (await client.get("/meshes/default/dataplanes/web-01/stats")).status_code == 503
    assert called == []


@pytest.mark.parametrize("answered", [b"hi", b"[" * 100_000, b'{"configs": ' + b"[" * 900 + b"]" * 900 + b"}"])
async def test_what_answers_like_no_envoy_is_no_fault_of_ours(cp: Running, answered: bytes) -> None:
    """A proxy says itself where its Envoy is; anything may be there."""

    async def answer(reader: Any, writer: Any) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(answered), answered))
        await writer.drain()
        writer.close()

    async with administered(cp, answer) as (_, client):
        found = await client.get("/meshes/default/dataplanes/web-01/xds")
        assert (found.status_code, "does not answer" in found.text) == (503, True)


async def test_envoys_are_asked_at_the_port_they_were_started_with(cp: Running) -> None:
    """A user may write any admin port into a Dataplane, and a proxy may say that it is at the control plane's own."""
    called = []

    async def answer(reader: Any, writer: Any) -> None:
        called.append(await reader.readline())
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    bait = server.sockets[0].getsockname()[1]
    base = f"http://127.0.0.1:{await cp.api_port()}"
    for said in (None, 1, await cp.api_port()):
        described = body(address="127.0.0.1")
        described["networking"]["admin"] = {"port": bait}
        proxy = FakeProxy("default.web-01", cp.token(), codec.parse(described))
        if said:
            proxy.node.metadata.update({"dataplane.admin.port": str(said)})
        proxy.connect(await cp.channel())
        await cp.settled(1)
        async with httpx.AsyncClient(verify=NOBODY, base_url=base, timeout=PATIENCE) as client:
            found = await client.get("/meshes/default/dataplanes/web-01/stats")
        assert found.status_code == 503
        assert found.json()["detail"] == "the Envoy of default.web-01 does not answer"
        await proxy.disconnect()
        await cp.disconnected(codec.parse(described))
    server.close()
    await server.wait_closed()
    assert called == []
