"""Whoever may only look does not keep the control plane from its work, nor others from looking."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta

import httpx

from kuma.base.tls.trust import NOBODY
from tests.fakes.control_plane import ALLOW_ALL, MTLS, Running
from tests.fakes.many import many_dataplanes

PREVIEW = "/gui/meshes/default/preview"


@asynccontextmanager
async def signed_in(cp: Running, name: str) -> AsyncIterator[httpx.AsyncClient]:
    origin = f"http://localhost:{await cp.api_port()}"
    async with httpx.AsyncClient(verify=NOBODY, base_url=origin, headers={"origin": origin}, timeout=None) as client:
        token = await cp.parts.users.issue(name, (), timedelta(hours=1))
        assert (await client.post("/gui/sign-in", data={"token": token})).status_code == 303
        yield client


async def previewed(client: httpx.AsyncClient, text: str) -> httpx.Response:
    proof = (await client.get("/gui/")).text.partition('name="proof" value="')[2].partition('"')[0]
    return await client.post(PREVIEW, data={"proof": proof, "text": text, "do": "preview"})


async def test_long_texts_and_those_of_many_meshes_are_not_previewed(cp: Running) -> None:
    async with signed_in(cp, "john") as client:
        long = await previewed(client, "type: Mesh\nname: default\n" + "# much of nothing\n" * 20_000)
        assert long.status_code == 400
        assert "longer than 262,144 bytes" in long.text
        wide = await previewed(client, "\n---\n".join(f"{{type: Mesh, name: mesh-{i}}}" for i in range(17)))
        assert wide.status_code == 400
        assert "16 are the most" in wide.text
        assert (await previewed(client, "{type: Mesh, name: default}")).status_code == 200


async def test_of_a_great_many_services_the_first_are_shown_and_it_says_so(cp: Running) -> None:
    await cp.apply(MTLS, ALLOW_ALL)
    await many_dataplanes(cp, 720, 720)
    async with signed_in(cp, "john") as client:
        matrix = await client.get("/gui/meshes/default/calls")
        assert "too many for one picture" in matrix.text
        assert '<svg class="picture"' not in matrix.text
        fewer = await client.get("/gui/meshes/default/calls?from=service-1")
        assert '<svg class="picture"' in fewer.text
        service = await client.get("/gui/meshes/default/calls/service-000")
        assert service.text.count("And 520 more") == 2
        assert 'href="/gui/meshes/default/calls?to=service-000"' in service.text


async def test_one_user_does_not_take_the_streams_of_all(cp: Running) -> None:
    async with AsyncExitStack() as stack:
        read: list[AsyncIterator[bytes]] = []
        john, jane = [await stack.enter_async_context(signed_in(cp, name)) for name in ("john", "jane")]

        async def opened(client: httpx.AsyncClient) -> int:
            """Opens a stream and leaves it open; the status, once it has begun."""
            answer = await stack.enter_async_context(client.stream("GET", "/gui/live"))
            read.append(answer.aiter_raw())
            await anext(read[-1])
            return answer.status_code

        found = [await opened(john) for _ in range(21)]
        assert found == [200] * 20 + [429]
        assert await opened(jane) == 200
