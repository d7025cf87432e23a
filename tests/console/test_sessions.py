"""Who gets to see and to change what in the console: sessions, the administrator of this machine, other sites."""

import base64
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from kuma.base.tls.trust import NOBODY
from kuma.console import sealing, sessions
from kuma.resources import kinds
from kuma.resources.models.secret import SecretSpec
from kuma.resources.resource import Resource
from tests.fakes.clock import ManualClock
from tests.fakes.control_plane import ALLOW_ALL, Running, resource, running
from tests.fakes.patience import PATIENCE

HOUR = timedelta(hours=1)


@pytest.fixture
async def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def cp(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Running]:
    """Nobody on this machine is the administrator."""
    section = {"http": {"port": 0}, "https": {"port": 0}, "authn": {"localhost_is_admin": False}}
    async with running(tmp_path, clock, api_server=section) as found:
        yield found


@pytest.fixture
async def client(cp: Running) -> AsyncIterator[httpx.AsyncClient]:
    origin = f"http://localhost:{await cp.api_port()}"
    async with httpx.AsyncClient(verify=NOBODY, base_url=origin, headers={"origin": origin}, timeout=None) as found:
        yield found


async def sign_in(cp: Running, client: httpx.AsyncClient, name: str = "john", *groups: str) -> httpx.Response:
    token = await cp.parts.users.issue(name, groups, 100 * HOUR)
    return await client.post("/gui/sign-in", data={"token": token, "next": "/gui/"})


async def test_nobody_sees_anything_before_they_sign_in(cp: Running, client: httpx.AsyncClient) -> None:
    for path in ("/gui/", "/gui/meshes/default", "/gui/meshes/default/proxies?q=a"):
        answer = await client.get(path)
        assert answer.status_code == 303
        assert answer.headers["location"].startswith("/gui/sign-in?next=%2Fgui%2F")
    beginning = await client.get("/gui")
    assert (beginning.status_code, beginning.headers["location"]) == (307, "/gui/")
    assert (await client.get("/gui/live", headers={"accept": "text/event-stream"})).status_code == 403
    refused = await client.post("/gui/sign-in", data={"token": "x.y.z"})
    assert (refused.status_code, "set-cookie" in refused.headers) == (401, False)


async def test_a_session_is_sealed_and_out_of_reach_of_scripts_and_other_sites(
    cp: Running, client: httpx.AsyncClient
) -> None:
    token = await cp.parts.users.issue("john", ("team-a",), HOUR)
    answer = await client.post("/gui/sign-in", data={"token": token, "next": "/gui/meshes/default"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/gui/meshes/default")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie and "Path=/gui" in cookie
    value = cookie.partition("=")[2].partition(";")[0]
    assert token not in cookie and token.encode() not in base64.urlsafe_b64decode(value)
    seen = await client.get("/gui/")
    assert seen.status_code == 200 and "john" in seen.text and token not in seen.text
    for path in ("/meshes", "/who-am-i"):  # it is of the console alone
        client.cookies.set("kuma-session", value, path="/")
        assert "john" not in (await client.get(path)).text


async def test_over_https_the_cookie_is_secure(cp: Running) -> None:
    port = await cp.parts.api["API server, HTTPS"].port()
    origin = f"https://localhost:{port}"
    async with httpx.AsyncClient(base_url=origin, headers={"origin": origin}, verify=False, timeout=PATIENCE) as client:
        cookie = (await sign_in(cp, client)).headers["set-cookie"]
        assert cookie.startswith("__Secure-kuma-session=") and "Secure" in cookie
        assert (await client.get("/gui/")).status_code == 200


async def test_a_session_ends_with_its_token_its_key_and_after_twelve_hours(
    cp: Running, client: httpx.AsyncClient, clock: ManualClock
) -> None:
    import jwt

    async def is_in() -> bool:
        return (await client.get("/gui/")).status_code == 200

    token = await cp.parts.users.issue("john", (), 100 * HOUR)
    await client.post("/gui/sign-in", data={"token": token})
    assert await is_in()
    jti = jwt.decode(token, options={"verify_signature": False})["jti"]
    revoked = Resource(kinds.GLOBAL_SECRET.key("user-token-revocations"), SecretSpec(data=jti.encode()))
    await cp.parts.manager.put(revoked)
    assert not await is_in()
    ended = await client.get("/gui/sign-in")
    assert "revoked" in ended.text

    await sign_in(cp, client, "jane")
    assert await is_in()
    await cp.parts.manager.delete(kinds.GLOBAL_SECRET.key(sealing.SECRET))
    assert not await is_in(), "all sessions end with the key"

    await sign_in(cp, client, "jane")
    clock.advance(sessions.LIFETIME.total_seconds() - 1)
    assert await is_in()
    clock.advance(1)
    assert not await is_in()


async def test_signing_out_forgets_the_session(cp: Running, client: httpx.AsyncClient) -> None:
    await sign_in(cp, client)
    proof = (await client.get("/gui/")).text.partition('name="proof" value="')[2].partition('"')[0]
    assert (await client.post("/gui/sign-out", data={"proof": "0" * 64})).status_code == 403
    assert (await client.post("/gui/sign-out", data={"proof": proof})).status_code == 303
    assert (await client.get("/gui/")).status_code == 303


async def test_other_sites_change_nothing(cp: Running, client: httpx.AsyncClient) -> None:
    token = await cp.parts.users.issue("john", (), HOUR)
    for headers in (
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost:1"},
        {"origin": ""},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ):
        answer = await client.post("/gui/sign-in", data={"token": token}, headers=headers)
        assert (answer.status_code, "set-cookie" in answer.headers) == (403, False), headers


async def test_behind_a_proxy_that_takes_https_off_one_signs_in_and_the_cookie_is_secure(
    cp: Running, client: httpx.AsyncClient
) -> None:
    token = await cp.parts.users.issue("john", (), HOUR)
    outside = {"host": "console.example", "origin": "https://console.example", "x-forwarded-proto": "https"}
    answer = await client.post("/gui/sign-in", data={"token": token}, headers=outside)
    assert answer.status_code == 303
    assert answer.headers["location"] == "/gui/", "whatever the proxy is called"
    assert "Secure" in answer.headers["set-cookie"]


async def test_whoever_may_read_without_a_token_sees_pages_and_changes_nothing(tmp_path: Path) -> None:
    section = {"http": {"port": 0}, "https": {"port": 0}, "authn": {"localhost_is_admin": False}}
    async with running(tmp_path, api_server=section, access={"anonymous_reads": True}) as cp:
        origin = f"http://localhost:{await cp.api_port()}"
        async with httpx.AsyncClient(
            verify=NOBODY, base_url=origin, headers={"origin": origin}, timeout=None
        ) as client:
            assert "Overview" in (await client.get("/gui/")).text
            assert (await client.get("/gui/meshes/default/secrets")).status_code == 303
            page = "/gui/meshes/default/preview"
            sent = {"text": ALLOW_ALL, "do": "apply", "proof": ""}
            assert (await client.post(page, data=sent)).status_code == 403
            assert await cp.parts.manager.find(resource(ALLOW_ALL).key) is None


async def test_a_stream_tells_at_once_what_its_page_does_not_show_yet(tmp_path: Path) -> None:
    async with running(tmp_path) as cp:
        origin = f"http://localhost:{await cp.api_port()}"
        async with (
            httpx.AsyncClient(verify=NOBODY, base_url=origin, timeout=None) as client,
            client.stream("GET", "/gui/live?since=x") as stream,
        ):
            lines = stream.aiter_lines()
            assert stream.headers["content-type"].startswith("text/event-stream")
            assert await anext(lines) == "retry: 1000"
            while not (await anext(lines)).startswith("data: "):
                pass


async def test_one_goes_on_to_pages_of_the_console_only(cp: Running, client: httpx.AsyncClient) -> None:
    token = await cp.parts.users.issue("john", (), HOUR)
    for wanted in ("https://evil.example/", "//evil.example", "/gui/\\evil", "/gui", "/meshes", "javascript:alert(1)"):
        answer = await client.post("/gui/sign-in", data={"token": token, "next": wanted})
        assert answer.headers["location"] == "/gui/", wanted


async def test_every_answer_forbids_scripts_frames_and_what_is_elsewhere(
    cp: Running, client: httpx.AsyncClient
) -> None:
    await sign_in(cp, client)
    paths = (
        "/gui/",
        "/gui/nothing",
        "/gui/meshes/nothing",
        "/gui/sign-in",
        "/gui/static/x/console.css",
        "/gui/static/x/y",
    )
    for path in paths:
        headers = (await client.get(path)).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
        assert (headers["x-content-type-options"], headers["x-frame-options"]) == ("nosniff", "DENY")
        assert "static" in path or headers["cache-control"] == "no-store", "pages are kept nowhere"


async def test_the_administrator_of_this_machine_needs_no_session_unless_another_site_asks(tmp_path: Path) -> None:
    async with running(tmp_path) as cp:
        origin = f"http://localhost:{await cp.api_port()}"
        async with httpx.AsyncClient(verify=NOBODY, base_url=origin, timeout=None) as client:
            assert "mesh-system:admin" in (await client.get("/gui/")).text
            for headers in (
                {"sec-fetch-site": "cross-site"},
                {"sec-fetch-site": "same-site"},
                {"x-forwarded-for": "1"},
            ):
                answer = await client.get("/gui/", headers=headers)
                assert answer.status_code == 303 and "mesh-system:admin" not in answer.text
            rebound = await client.get("/gui/", headers={"host": "evil.example"})
            assert rebound.status_code == 303
