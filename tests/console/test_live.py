"""Open pages follow what happens, without being loaded again."""

from datetime import timedelta
from pathlib import Path

from kuma.resources import kinds
from kuma.resources.models.secret import SecretSpec
from kuma.resources.resource import Resource
from tests.console.browser import visiting
from tests.fakes.control_plane import ALLOW_ALL, MTLS, Running, running
from tests.integration.sidecars import sidecars, until


async def test_a_change_on_real_proxies_is_followed_step_by_step_with_who_is_waited_for(
    tmp_path: Path, driven: str
) -> None:
    async with running(tmp_path, xds_server={"port": 0, "transition_patience": "10m"}) as cp:
        await cp.apply(ALLOW_ALL)
        origin = f"http://localhost:{await cp.api_port()}"
        async with sidecars(cp, tmp_path) as mesh, visiting(driven, origin) as browser:
            _web, backend = await mesh.pair()
            page = await browser.open("/gui/meshes/default")
            await page.evaluate("window.opened = 1")
            await page.wait_for_selector("#live-state:text('live')")
            assert "plaintext" in await page.inner_text("[aria-current=step]")
            with backend.hung():
                await cp.apply(MTLS)
                await page.wait_for_selector("#course .names li:text('backend-01')")
                assert "accepting" in await page.inner_text("[aria-current=step]")
                assert "off → STRICT with builtin/ca-1" in await page.inner_text("#course")
                assert "of 2 proxies have acknowledged" in await page.inner_text("#course")
                await browser.check()
            await page.wait_for_selector("#course :text('Everything runs as the Mesh declares')")
            assert "strict" in await page.inner_text("[aria-current=step]")
            assert await page.locator("#authority-list tbody tr").count() == 1
            assert await page.evaluate("window.opened") == 1, "it was not loaded again"

            async def is_shown() -> bool:
                """By loading: who has called is stored, and so told to pages, once in a while only."""
                page = await browser.open("/gui/meshes/default/calls?to=backend")
                return await page.locator("table.matrix td.used").count() == 1

            await until("the call of before is shown", is_shown)
            page = await browser.open("/gui/meshes/default/proxies")
            for text in ("spiffe://default/web", "ca-1", "yes"):
                await page.wait_for_selector(f"#proxies tr:has-text('web-01') :text('{text}')")
            page = await browser.open("/gui/certificates?q=backend")
            assert await page.locator("tbody tr").count() == 1
            await page.goto("about:blank")


async def test_a_page_whose_session_has_ended_leads_to_where_one_signs_in(cp: Running, driven: str) -> None:
    import jwt

    token = await cp.parts.users.issue("john", (), timedelta(hours=1))
    async with visiting(driven, f"http://localhost:{await cp.api_port()}") as browser:
        page = await browser.open("/gui/sign-in")
        await page.fill("#token", token)
        await page.keyboard.press("Enter")
        await page.wait_for_url("**/gui/")
        await page.wait_for_selector("#live-state:text('live')")
        jti = jwt.decode(token, options={"verify_signature": False})["jti"]
        revoked = Resource(kinds.GLOBAL_SECRET.key("user-token-revocations"), SecretSpec(data=jti.encode()))
        await cp.parts.manager.put(revoked)
        await cp.apply(ALLOW_ALL)
        await page.wait_for_url("**/gui/sign-in?next=*")
        assert "revoked" in await page.inner_text("[role=alert]")
        # On a slow machine the stream may have been opened again meanwhile.
        browser.errors = [error for error in browser.errors if "status of 403" not in error]
