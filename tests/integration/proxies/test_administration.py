"""What the API tells of real Envoys, and who else can ask them."""

import asyncio
import json
import os
import signal
import ssl
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from demo.processes import free_ports
from kuma.base.tls.trust import NOBODY
from kuma.xds.administration.ca import Credential
from tests.fakes.control_plane import ALLOW_ALL, MTLS, Running
from tests.fakes.patience import PATIENCE
from tests.integration.sidecars import Sidecar, Sidecars, until


@pytest.fixture
def declared() -> tuple[str, ...]:
    return MTLS, ALLOW_ALL


@pytest.fixture
async def api(cp: Running) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{await cp.api_port()}/meshes/default/dataplanes", timeout=PATIENCE
    ) as client:
        yield client


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2"])
async def test_what_an_envoy_runs_and_counts(mesh: Sidecars, api: httpx.AsyncClient, address: str) -> None:
    web = await mesh.start("web", address=address)
    found = await api.get("/web-01/xds")
    assert found.status_code == 200, found.text
    kinds = {config["@type"].rpartition(".")[2] for config in found.json()["configs"]}
    assert {"BootstrapConfigDump", "ClustersConfigDump", "ListenersConfigDump", "SecretsConfigDump"} <= kinds
    assert "EndpointsConfigDump" not in kinds
    assert f"inbound:{address}:{web.port}" in found.text
    whole = (await api.get("/web-01/xds?include_eds=true")).json()
    assert any(config["@type"].endswith("EndpointsConfigDump") for config in whole["configs"])
    stats = await api.get("/web-01/stats")
    assert stats.headers["content-type"].startswith("text/plain")
    assert "cluster.ads_cluster.upstream_cx_total: " in stats.text
    assert json.loads((await api.get("/web-01/stats?format=json")).text)["stats"]
    assert "ads_cluster::" in (await api.get("/web-01/clusters")).text


async def test_a_dump_holds_neither_keys_nor_tokens(cp: Running, mesh: Sidecars, api: httpx.AsyncClient) -> None:
    await mesh.start("web", address="127.0.0.2")
    dump = (await api.get("/web-01/xds")).text
    token = cp.token(name="web-01").split(".")
    assert token[1] not in dump
    assert "PRIVATE KEY" not in dump
    assert "LS0tLS1CRUdJTiBQUklWQVRF" not in dump  # the same in base64
    assert '"[redacted]"' in dump


READS = (
    "config_dump",
    "config_dump?include_eds",
    "init_dump",
    "server_info",
    "clusters",
    "listeners",
    "stats",
    "certs",
)


async def test_envoy_itself_shows_no_token_to_whoever_reaches_its_administration(
    mesh: Sidecars, tmp_path: Path
) -> None:
    web = await mesh.start("web")
    token = (tmp_path / "web-token").read_text()
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{web.admin}", verify=NOBODY, trust_env=False, timeout=PATIENCE
    ) as client:
        for path in READS:
            shown = (await client.get(f"/{path}")).text
            assert shown, path
            assert not [part for part in token.split(".")[1:] if part in shown], path


async def get(web: Sidecar, path: str, tls: ssl.SSLContext, method: str = "GET") -> int:
    async with httpx.AsyncClient(verify=tls, trust_env=False, timeout=PATIENCE) as client:
        return (await client.request(method, f"https://127.0.0.2:{web.admin}{path}")).status_code


def context(credential: Credential, directory: Path, *, show: bool = True) -> ssl.SSLContext:
    found = ssl.create_default_context(cadata=credential.ca.decode())
    pair = directory / "pair.pem"
    pair.write_bytes(credential.certificate + credential.key)
    if show:
        found.load_cert_chain(pair)
    return found


async def test_only_a_control_plane_reads_and_nobody_writes(cp: Running, mesh: Sidecars, tmp_path: Path) -> None:
    web = await mesh.start("web", address="127.0.0.2")
    ours = cp.parts.envoy_admin_ca.control_plane()
    assert await get(web, "/stats", context(ours, tmp_path)) == 200
    assert await get(web, "/quitquitquit", context(ours, tmp_path), "POST") == 404
    assert await get(web, "/stats", context(ours, tmp_path), "POST") == 404
    assert await get(web, "/certs", context(ours, tmp_path)) == 404
    for stranger in (
        context(ours, tmp_path, show=False),
        context(cp.parts.envoy_admin_ca.proxy("127.0.0.2"), tmp_path),
    ):
        with pytest.raises((httpx.ConnectError, httpx.ReadError, httpx.RemoteProtocolError, ssl.SSLError)):
            await get(web, "/stats", stranger)


async def test_a_user_does_not_move_what_the_listener_leads_to(
    cp: Running, mesh: Sidecars, api: httpx.AsyncClient
) -> None:
    """Whoever writes a Dataplane could else have its Envoy, and the control plane, call ports of their choice."""
    called: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        called.append(await reader.readline())
        writer.close()

    bait = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = bait.sockets[0].getsockname()[1]
    web = await mesh.start("web", address="127.0.0.2")
    changed = (await api.get("/web-01")).json()
    changed["networking"]["admin"] = {"port": port}
    token = await cp.parts.users.issue("john", ["team"], timedelta(hours=1))
    answered = await api.put("/web-01", json=changed, headers={"authorization": f"Bearer {token}"})
    assert answered.status_code == 200, answered.text
    changed["networking"]["outbound"] = [{"port": free_ports(1)[0], "tags": {"kuma.io/service": "web"}}]
    await api.put("/web-01", json=changed)  # by what comes after it is seen that the change before has arrived

    async def arrived() -> bool:
        return "outbound:" in (await api.get("/web-01/xds")).text

    await until("the change has arrived", arrived)
    assert (await api.get("/web-01/stats")).status_code == 200
    assert f'"portValue": {port}' not in (await api.get("/web-01/xds")).text.replace('"port_value"', '"portValue"')
    ours = context(cp.parts.envoy_admin_ca.control_plane(), web.log.parent)
    async with httpx.AsyncClient(verify=ours, trust_env=False, timeout=PATIENCE) as client:
        with pytest.raises(httpx.ConnectError):
            await client.get(f"https://127.0.0.2:{port}/stats")
    bait.close()
    await bait.wait_closed()
    assert called == []


async def test_an_envoy_that_does_not_answer(cp: Running, mesh: Sidecars, api: httpx.AsyncClient) -> None:
    web = await mesh.start("web")
    missing = await api.get("/nobody/stats")
    assert missing.status_code == 404
    os.kill(web.envoy, signal.SIGKILL)

    async def gone() -> bool:
        return (await api.get("/web-01/stats")).status_code in (404, 503)

    await until("the answer says that it is gone", gone)
