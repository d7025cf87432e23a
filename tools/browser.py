"""Pages in a real Chromium, one for all tests of a process, driven by Playwright over its debugging port."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

from playwright.async_api import BrowserContext, Page, Request, async_playwright

from demo.processes import PATIENCE

_PROGRAM = Path("/usr/bin/chromium")
_OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--remote-debugging-port=0",
)  # fmt: skip
AXE = (files("axe_playwright_python") / "axe.min.js").read_text()
_OF_LOOKS = ("color-contrast", "scrollable-region-focusable", "target-size")
"""The rules of axe that depend on colours and sizes."""
NARROW, WIDE = 390, 1600


@contextlib.contextmanager
def chromium(directory: Path) -> Iterator[str]:
    """Runs a Chromium with a profile of its own; yields where it is driven."""
    assert _PROGRAM.exists(), "there is no Chromium on this machine; install it: make packages"
    told = directory / "DevToolsActivePort"
    with (directory / "chromium.log").open("wb") as log:
        process = subprocess.Popen(
            [_PROGRAM, *_OPTIONS, f"--user-data-dir={directory}", "about:blank"], stdout=log, stderr=log
        )
    try:
        end = time.monotonic() + PATIENCE
        while not (told.exists() and told.read_text().count("\n")):
            assert time.monotonic() < end, (directory / "chromium.log").read_text()
            assert process.poll() is None, (directory / "chromium.log").read_text()
            time.sleep(0.05)
        yield f"http://127.0.0.1:{told.read_text().split()[0]}"
    finally:
        process.terminate()
        process.wait()


class Browser:
    """A visitor of one console, with cookies of its own. What goes wrong in its pages is kept."""

    def __init__(self, context: BrowserContext, page: Page, origin: str) -> None:
        self.context = context
        self.page = page
        self.origin = origin
        self.errors: list[str] = []
        self.foreign: list[str] = []
        context.on("console", lambda message: self._note(message.type, message.text))
        context.on("weberror", lambda error: self.errors.append(str(error.error)))
        context.on("request", self._look_at)

    def _note(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.errors.append(text)

    def _look_at(self, request: Request) -> None:
        if not request.url.startswith(f"{self.origin}/"):
            self.foreign.append(request.url)

    async def open(self, path: str, *, status: int = 200) -> Page:
        """Opens a page, which has to be answered with a status."""
        answer = await self.page.goto(f"{self.origin}{path}")
        assert answer is not None and answer.status == status, (path, answer and answer.status)
        if status != 200:  # the browser complains of that, too
            self.errors = [error for error in self.errors if f"status of {status}" not in error]
        return self.page

    async def violations(self, *rules: str) -> list[str]:
        """What axe finds wrong with the page as it is, by some of its rules or all."""
        if await self.page.evaluate("window.axe === undefined"):
            await self.page.evaluate(AXE)
        options = {"runOnly": rules} if rules else {}
        found: dict[str, Any] = await self.page.evaluate("options => axe.run(options)", options)
        return [
            f"{self.page.url}: {one['id']}: {node['html'][:200]} {node['failureSummary'][:300]}"
            for one in found["violations"]
            for node in one["nodes"]
        ]

    async def fits(self) -> None:
        """The page is no wider than narrow and wide windows."""
        for width in (NARROW, WIDE):
            await self.page.set_viewport_size({"width": width, "height": 900})
            over = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            assert await self.page.evaluate(over) <= 0, f"{self.page.url} is wider than {width}"

    async def check(self) -> None:
        """The page is accessible in light and dark, and fits narrow and wide windows."""
        found: list[str] = []
        for scheme, width, rules in (("light", WIDE, ()), ("dark", NARROW, _OF_LOOKS)):
            await self.page.set_viewport_size({"width": width, "height": 900})
            await self.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            found += [f"{scheme}, {width}: {violation}" for violation in await self.violations(*rules)]
        assert not found, "\n".join(found)
        await self.fits()

    def fine(self) -> None:
        """Nothing went wrong, and nobody else was asked for anything."""
        assert not self.errors
        assert not self.foreign


@contextlib.asynccontextmanager
async def visiting(driven: str, origin: str, **options: Any) -> AsyncIterator[Browser]:
    """A visitor of the console at an origin; at the end nothing may have gone wrong in its pages."""
    async with async_playwright() as playwright:
        connected = await playwright.chromium.connect_over_cdp(driven)
        context = await connected.new_context(viewport={"width": WIDE, "height": 900}, **options)
        context.set_default_timeout(PATIENCE * 1000)
        found = Browser(context, await context.new_page(), origin)
        try:
            yield found
            found.fine()
        finally:
            await context.close()
            await connected.close()
