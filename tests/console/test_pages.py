"""The pages of the console in a real browser."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from kuma.resources import kinds
from kuma.resources.models.observed_traffic import Edge, ObservedTrafficSpec
from kuma.resources.resource import Resource
from kuma.store.protocol import Create
from kuma.xds.envoy.resource import TypeUrl
from tests.fakes.control_plane import ALLOW_ALL, MTLS, Running, dataplane
from tests.fakes.many import many_dataplanes
from tools.browser import Browser, visiting

EVIL = (
    "<script>window.evil=1</script><img src=x onerror='window.evil=1'>\"'><svg onload=window.evil=1></textarea>"
    "<b id=evil>"
)
"""What does something if it is not escaped: in text, in attributes with either quote, in a text field."""
MESH = (
    "{type: Mesh, name: default, "
    "mtls: {enabledBackend: ca-1, backends: [{name: ca-1, type: builtin, mode: PERMISSIVE}]}, logging: {backends: "
    "[{name: file, type: file, format: '</textarea><script>window.evil=1</script>', conf: {path: /l}}]}}"
)
PERMISSION = (
    "{type: MeshTrafficPermission, mesh: default, name: some, spec: {targetRef: {kind: MeshService, name: backend}, "
    "from: [{targetRef: {kind: MeshService, name: web}, default: {action: Allow}}]}}"
)
OF_MESH = ("", "/proxies", "/proxies/web-01", "/calls", "/calls/backend", "/permissions", "/secrets", "/preview")
PAGES = (
    *("/gui/", "/gui/sign-in", "/gui/certificates", "/gui/audit", "/gui/instances"),
    *(f"/gui/meshes/default{rest}" for rest in OF_MESH),
)


async def origin(cp: Running) -> str:
    return f"http://localhost:{await cp.api_port()}"


@pytest.fixture
async def visitor(cp: Running, driven: str) -> AsyncIterator[Browser]:
    """Somebody who looks at the console on the control plane's machine."""
    async with visiting(driven, await origin(cp)) as found:
        yield found


async def observed(cp: Running, dataplane: str, *edges: Edge) -> None:
    """A proxy has reported these callers; pages know it once something that was applied later is in the view."""
    spec = ObservedTrafficSpec(since=datetime(2026, 1, 1, tzinfo=UTC), edges=edges)
    key = kinds.OBSERVED_TRAFFIC.key(dataplane, "default")
    await cp.parts.manager.store.transact([Create(Resource(key, spec), kinds.MESH.key("default"))])


def edge(how: Any, outcome: Any, **more: Any) -> Edge:
    now = datetime.now(UTC)
    return Edge(
        service="backend", port=81, how=how, outcome=outcome, first=now, last=now, connections=7, hours=(7,), **more
    )


async def test_pages_are_accessible_fit_every_window_and_run_nothing_that_users_wrote(cp: Running, driven: str) -> None:
    await cp.apply(MESH, PERMISSION)
    web, backend = dataplane("web-01", "web", calls=("backend",)), dataplane("backend-01", "backend", 81)
    rejecting = await cp.proxy(web)
    rejecting.reject = lambda type_url: EVIL if type_url == TypeUrl.LISTENER else ""
    await cp.proxy(backend)
    await cp.insight(web, lambda found: found.subscriptions[-1].status.lds.last_rejection)
    await cp.insight(backend, lambda found: found.mtls)
    await observed(
        cp,
        "backend-01",
        edge("meshTls", "allowed", uris=("spiffe://default/web",)),
        edge("plaintext", "allowed", address=EVIL),
        edge("meshTls", "refused", uris=("spiffe://default/away",), reason=EVIL),
    )
    await cp.apply_resource(dataplane("away-01", "away", 82))
    token = await cp.parts.users.issue(EVIL, ("mesh-system:admin", EVIL), (datetime.max - datetime.now()) / 1e6)
    async with visiting(driven, await origin(cp)) as browser:
        page = await browser.open("/gui/sign-in")
        await page.fill("#token", token)
        await page.click("text=Sign in >> nth=-1")
        await page.wait_for_url("**/gui/")
        for path in PAGES:
            for query in (f"?q={EVIL}&state={EVIL}&page={EVIL}&from={EVIL}&to={EVIL}&only={EVIL}&next={EVIL}", ""):
                await browser.open(f"{path}{query}")
                assert await page.evaluate("window.evil") is None, path
                assert await page.locator("#evil, main script, img[src=x], svg[onload]").count() == 0, path
            await browser.check()
        await browser.open("/gui/meshes/default/proxies/web-01")
        assert "<script>window.evil=1</script>" in await page.inner_text("main"), "it is shown as it is"
        await browser.open("/gui/meshes/default/calls")
        assert EVIL in await page.inner_text("table.matrix")


async def test_an_empty_control_plane_says_what_to_do_and_errors_are_pages(visitor: Browser, cp: Running) -> None:
    page = await visitor.open("/gui/meshes/default")
    assert "There is no authority" in await page.inner_text("main")
    for path, text in (
        ("/proxies", "no Dataplane in this mesh yet"),
        ("/calls", "no service in this mesh yet"),
        ("/permissions", "There is none"),
    ):
        page = await visitor.open(f"/gui/meshes/default{path}")
        assert text in await page.inner_text("main")
        await visitor.check()
    await cp.delete("{type: Mesh, name: default}")
    await cp.parts.views.until(lambda: not cp.parts.views.meshes)
    page = await visitor.open("/gui/")
    assert "There is no mesh yet" in await page.inner_text("main")
    await visitor.check()
    for path in ("/gui/nothing", "/gui/meshes/default", "/gui/meshes/x/proxies/y", "/gui/meshes/x/preview"):
        page = await visitor.open(path, status=404)
        assert "There is no" in await page.inner_text("main")
        await visitor.check()


async def test_by_keyboard_one_gets_from_the_beginning_of_a_page_to_its_content(visitor: Browser) -> None:
    page = await visitor.open("/gui/")
    await page.keyboard.press("Tab")
    assert await page.evaluate("document.activeElement.textContent") == "Skip to the content"
    await page.keyboard.press("Enter")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/gui/meshes/default")


async def test_a_change_is_previewed_and_then_applied_by_who_may(visitor: Browser, cp: Running) -> None:
    await cp.apply(MTLS, PERMISSION)
    await observed(cp, "backend-01", edge("meshTls", "allowed", uris=("spiffe://default/web",)))
    await cp.apply_resource(dataplane("web-01", "web", calls=("backend",)))
    await cp.apply_resource(dataplane("backend-01", "backend", 81))
    page = await visitor.open("/gui/meshes/default/preview")
    await page.fill("#text", PERMISSION.replace("name: web", "name: shop"))
    await page.click("text=Preview >> nth=-1")
    assert "somebody breaks" in await page.inner_text("#result")
    assert "web (web-01)" in await page.inner_text("#result table")
    await visitor.check()

    await page.click("button[value=apply]")
    assert "say that it is to be applied all the same" in await page.inner_text("#result")
    stored = await cp.parts.manager.get(kinds.MESH_TRAFFIC_PERMISSION.key("some", "default"))
    assert stored.spec.from_[0].target_ref.name == "web", "nothing was changed"
    await page.check("#anyway")
    await page.click("button[value=apply]")
    assert "configured MeshTrafficPermission some" in await page.inner_text("#result")
    stored = await cp.parts.manager.get(kinds.MESH_TRAFFIC_PERMISSION.key("some", "default"))
    assert stored.spec.from_[0].target_ref.name == "shop"

    await page.fill("#text", "{type: Mesh, name: default, mtls: {backend: x}}")
    await page.click("text=Preview >> nth=-1")
    assert "did you mean backends?" in await page.inner_text("[role=alert]")
    await visitor.check()
    visitor.errors = [error for error in visitor.errors if "status of 4" not in error]


async def test_deleting_is_previewed_and_changing_begins_with_what_there_is(visitor: Browser, cp: Running) -> None:
    await cp.apply(MTLS, PERMISSION)
    await observed(
        cp,
        "backend-01",
        edge("meshTls", "allowed", uris=("spiffe://default/web",)),
        edge("meshTls", "allowed", uris=("spiffe://default/other",)),
    )
    await cp.apply_resource(dataplane("web-01", "web", calls=("backend",)))
    await cp.apply_resource(dataplane("backend-01", "backend", 81))
    page = await visitor.open("/gui/meshes/default/permissions")
    await page.click("text=Suggest permissions")
    assert "name: other" in await page.input_value("#text")
    await visitor.check()

    await visitor.open("/gui/meshes/default/permissions")
    await page.click("summary")
    await page.click("text=Change some")
    await page.wait_for_url("**/preview?edit=*")
    assert "name: some" in await page.input_value("#text")
    await page.select_option("#within", "1d")
    await page.click("text=Preview >> nth=-1")
    assert "nobody breaks" in await page.inner_text("#result")
    assert await page.input_value("#within") == "1d"

    await visitor.open("/gui/meshes/default/permissions")
    await page.click("summary")
    await page.click("text=Delete some")
    await page.wait_for_url("**/preview?delete=*")
    assert "web (web-01)" in await page.inner_text("#result table")
    await visitor.check()
    key = kinds.MESH_TRAFFIC_PERMISSION.key("some", "default")
    await page.click("button.danger")
    assert "say that it is to be applied all the same" in await page.inner_text("#result")
    assert await cp.parts.manager.get(key), "nothing was changed"
    await page.check("#anyway")
    await page.click("button.danger")
    assert "deleted MeshTrafficPermission some" in await page.inner_text("#result")
    await visitor.check()
    assert not (await cp.parts.manager.list(kinds.MESH_TRAFFIC_PERMISSION.name)).total

    await cp.parts.views.until(lambda: not cp.parts.views.view("default").mesh_permissions)
    for asked in ("delete=MeshTrafficPermission/some", "edit=Secret/x", "delete=Mesh/other", "edit=nonsense"):
        await visitor.open(f"/gui/meshes/default/preview?{asked}", status=404)
    await visitor.open("/gui/meshes/default/proxies/web-01")
    await page.click("text=Delete this Dataplane")
    await page.wait_for_url("**/preview?delete=*")
    await page.click("button.danger")
    assert "deleted Dataplane web-01" in await page.inner_text("#result")
    visitor.errors = [error for error in visitor.errors if "status of 4" not in error]


async def test_what_one_may_not_change_is_refused_with_the_reason_and_audited(cp: Running, driven: str) -> None:
    token = await cp.parts.users.issue("john", (), (datetime.max - datetime.now()) / 1e6)
    async with visiting(driven, await origin(cp)) as browser:
        page = await browser.open("/gui/meshes/default/preview")
        await browser.open("/gui/sign-in?next=/gui/meshes/default/preview")
        await page.fill("#token", token)
        await page.keyboard.press("Enter")
        await page.wait_for_url("**/preview")
        for mesh, became in ((MTLS, "failed"), (ALLOW_ALL, "created")):
            await page.fill("#text", mesh)
            await page.click("text=Preview >> nth=-1")
            await page.click("button[value=apply]")
            assert became in await page.inner_text("#result"), await page.inner_text("#result")
        assert (await cp.parts.manager.get(kinds.MESH.key("default"))).spec.mtls is None
        await browser.open("/gui/meshes/default/preview?delete=Mesh/default")
        await page.click("button.danger")
        assert "failed Mesh default" in await page.inner_text("#result")
        assert await cp.parts.manager.get(kinds.MESH.key("default"))
        for path in ("/gui/audit", "/gui/meshes/default/secrets"):
            await browser.open(path, status=403)
            assert 'user "john' in await page.inner_text("main")
        browser.errors = [error for error in browser.errors if "status of 4" not in error]
    async with visiting(driven, await origin(cp)) as administrator:
        page = await administrator.open("/gui/audit?q=john+TrafficPermission")
        assert "allow-all" in await page.inner_text("table")


async def test_five_thousand_dataplanes_are_found_by_name_and_two_hundred_services_are_readable(
    cp: Running, visitor: Browser
) -> None:
    await cp.apply(MTLS)
    await many_dataplanes(cp, 5000, 200)
    await cp.apply(PERMISSION.replace("name: backend", "name: service-150").replace("name: web", "name: service-199"))
    page = await visitor.open("/gui/")
    assert "0 of 5,000" in await page.inner_text("#meshes")
    page = await visitor.open("/gui/meshes/default/proxies")
    assert await page.locator("tbody tr").count() == 50
    await page.click("text=Next")
    assert "dp-0050" in await page.inner_text("tbody")
    await page.fill("#q", "dp-4999")
    await page.keyboard.press("Enter")
    await page.wait_for_selector("text=1 proxy")
    assert "spiffe://default/service-199" in await page.inner_text("tbody")

    page = await visitor.open("/gui/meshes/default/calls")
    assert await page.locator("table.matrix tbody tr").count() == 30
    assert await page.locator("svg.picture path.allowed").count() == 1
    await visitor.fits()
    await page.fill("#from", "service-199")
    await page.fill("#to", "service-15")
    await page.keyboard.press("Enter")
    await page.wait_for_url("**to=service-15*")
    assert await page.locator("table.matrix td.allowed").count() == 1
    await visitor.check()
    await page.click("text=service-150")
    await page.wait_for_url("**/calls/service-150")
    assert "service-199" in await page.inner_text("#service table")
