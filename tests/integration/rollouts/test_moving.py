"""Proxies that move to another control plane, which has a copy of the first one's store."""

import asyncio
import contextlib
import shutil
from pathlib import Path

from demo.processes import free_ports
from kuma.resources import kinds
from kuma.store.sql.embedded.backup import backup
from tests.fakes.control_plane import ALLOW_ALL, MTLS, Running, running
from tests.integration.sidecars import Sidecar, sidecars, traffic, until

WEB = kinds.DATAPLANE_INSIGHT.key("web-01", "default")


async def serial_of(sidecar: Sidecar) -> int:
    return int((await sidecar.leaf())["serial_number"], 16)


async def instances(cp: Running) -> list[str]:
    """The control planes that the last streams of a proxy went to."""
    insight = await cp.parts.manager.find(WEB)
    return [s.control_plane_instance_id for s in insight.spec.subscriptions] if insight else []


async def test_a_proxy_that_moves_to_another_control_plane_gets_another_certificate(tmp_path: Path) -> None:
    """Without a restart of the proxy: the second control plane has the address, and a backup, of the first one."""
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    xds = {"port": free_ports(1)[0]}
    first_life = contextlib.AsyncExitStack()
    first = await first_life.enter_async_context(running(one, xds_server=xds))
    async with first_life, sidecars(first, one) as mesh:
        await first.apply(MTLS, ALLOW_ALL)
        await mesh.start("backend")
        web = await mesh.start("web", calls=("backend",))
        await until("web reaches backend", lambda: web.call("backend"))
        await until("the first control plane has told of the proxy", lambda: instances(first))
        serial = await serial_of(web)
        await asyncio.to_thread(backup, one / "kuma.db", two / "kuma.db")
        for name in ("kuma.db.key", "ca.crt", "ca.key", "tls.crt", "tls.key"):
            shutil.copy(one / name, two)
        async with traffic(lambda: web.call("backend")) as answers:
            await first_life.aclose()
            async with running(two, xds_server=xds) as second:

                async def moved() -> bool:
                    return len(second.parts.proxies) == 2 and all(proxy.converged for proxy in second.parts.proxies)

                await until("the proxies run what the second control plane says", moved)
                (proxy,) = (found for found in second.parts.proxies if found.key.name == "web-01")
                assert proxy.keeper.identity is not None
                assert await serial_of(web) == proxy.keeper.identity.serial != serial

                async def both() -> bool:
                    return len(set(await instances(second))) == 2

                await until("the insight names both control planes", both)
        assert set(answers) == {200}
