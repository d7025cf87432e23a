"""Open pages follow what happens on real proxies, without being loaded again, and every page shows what these bring."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

from kuma.base import aio
from kuma.resources import kinds
from kuma.resources.models.secret import SecretSpec
from kuma.resources.resource import Resource
from tests.fakes.control_plane import ALLOW_ALL, MTLS, Running, running
from tests.integration.clients import without_certificate
from tests.integration.sidecars import Sidecar, exchange, http_status, sidecars, until
from tools.browser import Browser, visiting

PERMISSIVE = MTLS.replace("type: builtin", "type: builtin, mode: PERMISSIVE")
WEB_ONLY = ALLOW_ALL.replace("'*'", "web", 1)
_CUT_OFF = "▲ calls today, and would be refused under STRICT"
CALLERS = {
    "web": "● may call, and does",
    "other": "✕ tries to, and is refused",
    "plaintext from 127.0.0.1": _CUT_OFF,
    "a TLS of its own from 127.0.0.1": _CUT_OFF,
}
"""What is shown of those that call the backend."""


async def test_a_change_on_real_proxies_is_followed_and_every_page_shows_what_only_these_can_have_told(
    tmp_path: Path, driven: str
) -> None:
    async with running(tmp_path, xds_server={"port": 0, "transition_patience": "10m"}) as cp:
        await cp.apply(WEB_ONLY)
        origin = f"http://localhost:{await cp.api_port()}"
        async with sidecars(cp, tmp_path) as mesh, visiting(driven, origin) as browser:
            web, backend = await mesh.pair()
            other = await mesh.start("other", calls=("backend",))
            await follow_a_change(cp, browser, backend)
            assert await until("web is admitted", lambda: web.reaches("backend"))
            assert await until("other is refused", lambda: other.is_refused("backend"))
            assert await http_status(backend.port) == 200
            own_tls = aio.spawn(exchange(backend.port, b"x", without_certificate()), name="a TLS that nobody answers")
            await visit_what_proxies_say_of_themselves(browser, backend)
            # Connections over HTTP are told of when they end: of requests only some are, by chance.
            for caller in (web, other):
                caller.running.terminate()
            await visit_what_is_stored(browser, backend)
            await visit_what_was_observed(browser)
            await aio.stop([own_tls])
            await browser.page.goto("about:blank")


async def follow_a_change(cp: Running, browser: Browser, backend: Sidecar) -> None:
    """Step by step, with who is waited for, in pages that stay open."""
    page = await browser.open("/gui/meshes/default")
    await page.evaluate("window.opened = 1")
    await page.wait_for_selector("#live-state:text('live')")
    assert "plaintext" in await page.inner_text("[aria-current=step]")
    with backend.hung():
        await cp.apply(PERMISSIVE)
        await page.wait_for_selector("#course .names li:text('backend-01')")
        assert "accepting" in await page.inner_text("[aria-current=step]")
        assert "off → PERMISSIVE with builtin/ca-1" in await page.inner_text("#course")
        assert "of 3 proxies have acknowledged" in await page.inner_text("#course")
        await browser.check()
    await page.wait_for_selector("#course :text('Everything runs as the Mesh declares')")
    assert "encrypting" in await page.inner_text("[aria-current=step]")
    assert await page.locator("#authority-list tbody tr").count() == 1
    assert await page.evaluate("window.opened") == 1, "it was not loaded again"


async def shows(browser: Browser, path: str, *selectors: str) -> None:
    """A page shows all of these, if need be after it was loaded again, and axe finds nothing wrong with it."""

    async def are_there() -> bool:
        page = await browser.open(path)
        return all([await page.locator(selector).first.is_visible() for selector in selectors])

    await until(f"{path} shows {selectors}", are_there)
    assert not await browser.violations()


async def visit_what_proxies_say_of_themselves(browser: Browser, backend: Sidecar) -> None:
    """The Envoy is asked, too: pages show its version, and the leaf that it has loaded."""
    version = (await backend.says("/server_info"))["version"].split("/")[1]
    leaf = await backend.leaf()
    serial, ends = f"{int(leaf['serial_number'], 16):x}", datetime.fromisoformat(leaf["expiration_time"]).isoformat()
    row = "tr:has-text('backend-01')"
    of_it = f"text={version}", f"time[datetime='{ends}']", "text=spiffe://default/backend"
    await shows(browser, "/gui/meshes/default", "#facts :text('3 of 3')")
    await shows(browser, "/gui/meshes/default/proxies", *(f"#proxies {row} >> {one}" for one in of_it))
    await shows(browser, "/gui/meshes/default/proxies/backend-01", *(f"#proxy >> {one}" for one in of_it))
    in_use = f"#certificates {row} :text('{serial}')", f"#certificates {row} >> {of_it[1]}"
    await shows(browser, f"/gui/certificates?q={serial}", "text=1 certificate", *in_use)
    await shows(browser, "/gui/instances", "tbody td.number:text-is('3')")


async def visit_what_is_stored(browser: Browser, backend: Sidecar) -> None:
    """Whom the Envoy trusts is what is kept; it was recorded who got a certificate."""
    roots = [root for one in (await backend.says("/certs"))["certificates"] for root in one["ca_cert"]]
    (ends,) = {root["expiration_time"] for root in roots if {"uri": "spiffe://default"} in root["subject_alt_names"]}
    ends = datetime.fromisoformat(ends).isoformat()
    serial = f"{int((await backend.leaf())['serial_number'], 16):x}"
    await shows(browser, "/gui/meshes/default/secrets", f"tr:has-text('ca-builtin-cert') time[datetime='{ends}']")
    await shows(browser, f"/gui/audit?q={serial}", "tbody :text('backend-01')")
    await shows(browser, "/gui/meshes/default/permissions", "text=1 permission")
    await shows(browser, "/gui/sign-in", "#token")


async def visit_what_was_observed(browser: Browser) -> None:
    """By real Envoys of real callers: what is shown, foreseen and suggested."""

    async def are_all_there() -> bool:
        """By loading: pages are told of callers once in a while only."""
        page = await browser.open("/gui/meshes/default/calls/backend")
        rows = [row.split("\t") for row in await page.locator("#service tbody tr").all_inner_texts()]
        return CALLERS.items() <= {cells[0]: cells[1] for cells in rows}.items()

    await until("all callers are shown", are_all_there)
    assert not await browser.violations()
    marks = [f"tr:has-text('{caller}') >> td.{mark}" for caller, mark in (("web", "used"), ("other", "tried"))]
    await shows(browser, "/gui/meshes/default/calls?to=backend", *marks, "tr:has-text('plaintext') >> td.breaks")
    await shows(browser, "/gui/", "#meshes :text('1 of 1')", "#findings :text('plaintext')")
    await shows(browser, "/gui/meshes/default/preview?suggest=yes", "#text")
    suggested = await browser.page.input_value("#text")
    assert "name: web" in suggested
    assert "name: other" not in suggested
    await browser.page.fill("#text", MTLS)
    await browser.page.click("text=Preview >> nth=-1")
    assert "Can it go STRICT? no" in await browser.page.inner_text("#result")
    affected = await browser.page.locator("#result tbody tr").all_inner_texts()
    assert {row.split()[0] for row in affected} == {"127.0.0.1"}
    assert not await browser.violations()


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
