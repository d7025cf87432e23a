"""Makes the pictures of the console in `docs/pictures`, of a small mesh in the middle of a change.

Usage: python -m tools.screenshots [DIRECTORY]
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from kuma.resources import kinds
from kuma.resources.models.observed_traffic import Edge, ObservedTrafficSpec
from kuma.resources.resource import Resource
from kuma.store.protocol import Create
from tests.fakes.control_plane import MTLS, Running, dataplane, running
from tools.browser import Browser, chromium, visiting

PICTURES = Path(__file__).resolve().parents[1] / "docs" / "pictures"
CALLS = {
    "web": ("shop", "users"),
    "shop": ("cart", "payments", "users"),
    "cart": ("stock",),
    "payments": ("mail", "ledger"),
    "users": ("mail",),
    "stock": (),
    "mail": (),
    "ledger": (),
}
UNSEEN = ("users", "mail")
_PERMISSIVE = MTLS.replace("type: builtin", "type: builtin, mode: PERMISSIVE")
_SECOND = (
    "{type: Mesh, name: default, mtls: {enabledBackend: ca-2, backends: ["
    "{name: ca-1, type: builtin, mode: PERMISSIVE}, {name: ca-2, type: builtin, mode: PERMISSIVE}]}}"
)


def _permission(called: str, callers: Iterable[str]) -> str:
    sources = ", ".join(f"{{match: {{kuma.io/service: {caller}}}}}" for caller in callers)
    destinations = f"[{{match: {{kuma.io/service: {called}}}}}]"
    named = f"type: TrafficPermission, mesh: default, name: {called}"
    return f"{{{named}, sources: [{sources}], destinations: {destinations}}}"


def _edge(service: str, port: int, caller: str, now: datetime, count: int) -> Edge:
    is_known = "." not in caller
    return Edge(
        service=service, port=port, how="meshTls" if is_known else "plaintext", outcome="allowed",
        first=now - timedelta(hours=5), last=now - timedelta(minutes=2), connections=count, hours=(count,),
        uris=(f"spiffe://default/{caller}",) if is_known else (), address="" if is_known else caller,
    )  # fmt: skip


async def _mesh(cp: Running) -> None:
    """Services with proxies, of which one does not answer, permissions, and who was seen to call whom."""
    await cp.apply(_PERMISSIVE)
    callers: dict[str, list[str]] = {}
    for caller, called in CALLS.items():
        for service in called:
            callers.setdefault(service, []).append(caller)
    for service, names in callers.items():
        await cp.apply(_permission(service, names))
    ports = {service: 8080 + index for index, service in enumerate(CALLS)}
    proxies = {
        service: await cp.proxy(dataplane(f"{service}-01", service, ports[service], called))
        for service, called in CALLS.items()
    }
    await cp.settled(len(CALLS))
    now = datetime.now(UTC)
    for service, names in callers.items():
        seen = [name for name in names if (name, service) != UNSEEN]
        edges = [_edge(service, ports[service], name, now, 1200 + 77 * len(name)) for name in seen]
        if service == "payments":
            edges.append(_edge(service, ports[service], "10.20.3.7", now, 31))
        spec = ObservedTrafficSpec(since=now - timedelta(days=3), edges=tuple(edges))
        key = kinds.OBSERVED_TRAFFIC.key(f"{service}-01", "default")
        await cp.parts.manager.store.transact([Create(Resource(key, spec), kinds.MESH.key("default"))])
    proxies["ledger"].silent = True
    await cp.apply(_SECOND)


async def _take(browser: Browser, path: str, name: str, directory: Path, ready: str) -> None:
    page = await browser.open(path)
    await page.set_viewport_size({"width": 1100, "height": 760})
    await page.wait_for_selector(ready)
    await page.screenshot(path=directory / f"{name}.png")


async def _take_preview(browser: Browser, directory: Path) -> None:
    """Asks whether the mesh can go STRICT with both of its authorities."""
    page = await browser.open("/gui/meshes/default/preview")
    await page.set_viewport_size({"width": 1100, "height": 620})
    await page.fill("#text", (await page.input_value("#text")).replace("mode: PERMISSIVE", "mode: STRICT"))
    await page.click("button[value=preview]")
    await page.wait_for_selector("#result table")
    await page.screenshot(path=directory / "preview.png")


async def main(directory: Path = PICTURES) -> None:
    """Take the pictures."""
    with (
        tempfile.TemporaryDirectory() as store,
        tempfile.TemporaryDirectory() as profile,
        chromium(Path(profile)) as at,
    ):
        async with running(Path(store), xds_server={"port": 0, "transition_patience": "10m"}) as cp:
            await _mesh(cp)
            async with visiting(at, f"http://localhost:{await cp.api_port()}") as browser:
                await _take(browser, "/gui/meshes/default", "mesh", directory, "#course .names")
                await _take(browser, "/gui/meshes/default/calls", "calls", directory, "table.matrix")
                await _take_preview(browser, directory)


if __name__ == "__main__":
    asyncio.run(main(*(Path(name) for name in sys.argv[1:])))
