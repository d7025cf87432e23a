"""The pages of the console in a real browser."""

from tests.console.browser import visiting
from tests.fakes.control_plane import ALLOW_ALL, MTLS, Running, dataplane

PAGES = ("/gui/", "/gui/meshes/default", "/gui/meshes/default/proxies", "/gui/meshes/default/proxies/web-01")


async def origin(cp: Running) -> str:
    return f"http://localhost:{await cp.api_port()}"


async def test_every_page_is_accessible_in_light_and_dark_narrow_and_wide(cp: Running, driven: str) -> None:
    await cp.apply(MTLS, ALLOW_ALL)
    web, backend = dataplane("web-01", "web", calls=("backend",)), dataplane("backend-01", "backend", 81)
    await cp.apply_resource(dataplane("away-01", "away", 82))
    for one in (web, backend):
        await cp.proxy(one)
    await cp.settled(2)
    async with visiting(driven, await origin(cp)) as browser:
        for path in PAGES:
            await browser.open(path)
            await browser.check()
