"""Who is handed a bootstrap, over the real server: whoever the stream would admit."""

from __future__ import annotations

import json
import ssl
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx

from kuma.base import aio
from kuma.base.clock import SystemClock
from kuma.resources import codec
from kuma.resources.resource import Resource
from kuma.store.manager import ResourceManager
from kuma.store.sql.embedded.sqlite import open_sqlite
from kuma.store.views import Views
from kuma.xds.bootstrap.server_names import ServerNames
from kuma.xds.bootstrap.service import AskingProxy, BootstrapService
from kuma.xds.stream.proxy_authentication import Authenticator
from tests.fakes.control_plane import Running, dataplane, running
from tests.fakes.patience import PATIENCE

WEB = dataplane("web-01", "web")


async def ask(cp: Running, token: str, brought: Resource[Any] | None = WEB, **more: str) -> httpx.Response:
    body = {
        "mesh": "default",
        "name": "web-01",
        "dataplaneToken": token,
        "dataplaneResource": json.dumps(codec.to_universal(brought)) if brought else "",
        **more,
    }
    trusted = ssl.create_default_context(cadata=cp.ca_pem.decode())
    async with httpx.AsyncClient(verify=trusted, trust_env=False, timeout=PATIENCE) as client:
        return await client.post(f"https://localhost:{await cp.parts.dp.port()}/bootstrap", json=body)


async def test_a_token_that_holds(cp: Running) -> None:
    assert (await ask(cp, cp.token(name="web-01"))).status_code == 200
    assert (await ask(cp, cp.token(service="web"))).status_code == 200


async def test_a_token_that_is_none_or_of_another_is_refused_at_once_in_our_own_words(cp: Running) -> None:
    await cp.apply("{type: Mesh, name: other}")
    signed = cp.token()
    refused = {
        "": "Dataplane Token is required",
        "nonsense": "the token is damaged, or no token at all; make a new one with `kumactl generate dataplane-token`",
        signed[:-20] + "A" * 20: "the token does not hold: its signature is not by the key that it names",
        cp.token(name="web-02"): "proxy name from requestor: web-01 is different than in token: web-02",
        cp.token(service="api"): 'dataplane contains tag "kuma.io/service" with value "web" which is not allowed',
        cp.token(mesh="other"): "the token does not hold: its signature is not by the key that it names",
        cp.token(valid_for=timedelta(seconds=-1)): "the token has expired",
    }
    for token, reason in refused.items():
        answer = await ask(cp, token)
        assert (answer.status_code, answer.text[: len(reason)]) == (422, reason)


async def test_the_token_has_to_hold_for_the_dataplane_that_is_to_be_replaced(cp: Running) -> None:
    await cp.apply_resource(dataplane("web-01", "api"))
    answer = await ask(cp, cp.token(service="web"))
    assert answer.status_code == 422
    assert 'tag "kuma.io/service" with value "api"' in answer.text


async def test_a_dataplane_that_does_not_exist_may_come_later(cp: Running) -> None:
    assert (await ask(cp, cp.token(), None)).status_code == 404
    assert (await ask(cp, "nonsense", None)).status_code == 422
    await cp.apply_resource(WEB)
    assert (await ask(cp, cp.token(), None)).status_code == 200


async def test_nobody_is_refused_because_the_meshes_have_not_been_listed_yet(tmp_path: Path) -> None:
    """As in the first instants of a control plane: the answer waits for what is stored to be known."""
    async with running(tmp_path) as cp:
        await cp.apply_resource(WEB)
        token = cp.token()
    store = await open_sqlite(tmp_path / "kuma.db", SystemClock())
    try:
        manager, views = ResourceManager(store, {}), Views(store)

        async def port() -> int:
            return 5677

        names = ServerNames(("localhost",), (tmp_path / "ca.crt").read_bytes())
        bootstrap_service = BootstrapService(
            manager, views, Authenticator(manager, views, SystemClock()), port, lambda: names
        )
        web = AskingProxy(
            mesh="default", name="web-01", brought=None, token=token, host="localhost", version={}, said={}, ca_pem=""
        )
        asked = aio.spawn(bootstrap_service.answer(web), name="bootstrap")
        for _ in range(5):
            await manager.get(WEB.key)  # the store answers; what it holds is not known all the same
        assert not asked.done()
        following = aio.spawn(views.run(), name="views")
        assert json.loads((await asked).bootstrap)["node"]["id"] == "default.web-01"
        await aio.stop([following])
    finally:
        await store.close()
