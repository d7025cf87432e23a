"""Secrets of authorities that are no longer listed."""

import asyncio
from pathlib import Path

from tests.fakes.control_plane import MTLS, Running, dataplane, running

TWO = MTLS.replace("{name: ca-1, type: builtin}", "{name: ca-1, type: builtin}, {name: ca-2, type: builtin}")
OTHER = MTLS.replace("ca-1", "ca-2")


def authorities(cp: Running) -> set[str]:
    return {name[-4:] for name in cp.parts.views.view("default").secrets if ".ca-builtin-" in name}


async def test_they_go_when_nothing_live_depends_on_them(tmp_path: Path) -> None:
    async with running(tmp_path) as cp:
        await cp.apply(TWO)
        web = await cp.proxy(dataplane("web-01", "web"))
        await web.until(lambda: web.certificate)
        await cp.settled(1)
        assert authorities(cp) == {"ca-1", "ca-2"}
        web.silent = True  # acknowledges nothing more, so the old authority may still be in use
        await cp.apply(OTHER)
        await asyncio.sleep(0.2)
        assert authorities(cp) == {"ca-1", "ca-2"}
        await web.disconnect()
        web = await cp.proxy(dataplane("web-01", "web"))
        async with asyncio.timeout(10):
            await cp.parts.views.until(lambda: authorities(cp) == {"ca-2"})
