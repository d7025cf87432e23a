"""The control plane gets another CA: proxies are told what to do, and follow without a restart once they trust it."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

from demo.processes import free_ports
from tests.fakes.control_plane import ALLOW_ALL, MTLS, running
from tests.integration.sidecars import sidecars, until


async def test_a_proxy_follows_its_ca_file(tmp_path: Path) -> None:
    work, beside = tmp_path / "cp", tmp_path / "dp"
    beside.mkdir()
    work.mkdir()
    dp, xds = free_ports(2)
    ports: dict[str, Any] = {"dp_server": {"port": dp}, "xds_server": {"port": xds}}
    trusted = beside / "ca.crt"
    async with contextlib.AsyncExitStack() as stack:
        async with running(work, **ports) as cp:
            await cp.apply(MTLS, ALLOW_ALL)
            trusted.write_bytes(cp.ca_pem)
            mesh = await stack.enter_async_context(sidecars(cp, beside))
            web = await mesh.start("web")
            envoy = web.envoy
        for name in ("ca.crt", "ca.key", "tls.crt", "tls.key"):
            (work / name).unlink()
        async with running(work, **ports) as cp:
            await until("the reason is told", lambda: _says(web.log, "shows a certificate that is not trusted"))
            assert not tuple(cp.parts.proxies)
            trusted.write_bytes(trusted.read_bytes() + cp.ca_pem)  # the old one and the new one

            async def connected() -> bool:
                return any(proxy.key.name == "web-01" and proxy.converged for proxy in cp.parts.proxies)

            await until("it is connected again", connected)
            assert web.envoy == envoy
            assert str(trusted) in web.log.read_text()


async def _says(log: Path, words: str) -> bool:
    return words in await asyncio.to_thread(log.read_text)
