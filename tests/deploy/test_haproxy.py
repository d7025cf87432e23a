"""The configuration for HAProxy, with a real one in front of real control planes."""

import asyncio
import contextlib
import functools
import re
import shutil
import ssl
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import httpx

from demo.processes import Processes, free_ports
from kuma.app.serving import server_certificate
from kuma.app.serving.server_certificate import ServerCertificate
from kuma.app.serving.servers import HTTPS
from kuma.xds.envoy.resource import TypeUrl
from tests.fakes.control_plane import Running, dataplane, running
from tests.fakes.patience import PATIENCE
from tests.fakes.proxy import FakeProxy, StreamEnded, channel
from tests.fakes.stores import store_settings

CONFIGURATION = Path(__file__).parents[2] / "deploy" / "haproxy" / "haproxy.cfg"
WEB = dataplane("web-01", "web")


def haproxy() -> str:
    program = shutil.which("haproxy")
    assert program is not None, "HAProxy is missing: make packages"
    return program


def test_it_is_taken_as_it_is() -> None:
    done = subprocess.run([haproxy(), "-c", "-f", CONFIGURATION], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def one_of_them(
    directory: Path, certificate: ServerCertificate, postgres: tuple[str, ...]
) -> contextlib.AbstractAsyncContextManager[Running]:
    """A control plane that has the certificate that all of them have."""
    directory.mkdir()
    shutil.copy(certificate.ca, directory / "ca.crt")
    files = {"tls_cert_file": certificate.chain, "tls_key_file": certificate.key, "tls_ca_file": certificate.ca}
    return running(directory, store=store_settings(postgres), general={"work_dir": directory, **files})


async def ports_of(plane: Running) -> dict[str, int]:
    """Where a control plane listens, by the ports that it has by itself."""
    return {
        "5678": await plane.parts.dp.port(),
        "5677": await plane.parts.xds.port(),
        "5682": await plane.parts.api[HTTPS].port(),
        "5680": await plane.parts.diagnostics.port(),
    }


def adapted(fronts: dict[str, int], planes: Sequence[dict[str, int]]) -> str:
    """The configuration with the ports of a test, and as many control planes as it has."""
    text = re.sub(r"bind :(\d+)", lambda m: f"bind 127.0.0.1:{fronts[m[1]]}", CONFIGURATION.read_text())

    def server(found: re.Match[str]) -> str:
        number, port = int(found[1]), found[2]
        if number > len(planes):
            return ""
        ports = planes[number - 1]
        return f"    server cp-{number} 127.0.0.1:{ports[port]} check port {ports['5680']}\n"

    return re.sub(r" +server cp-(\d) [\d.]+:(\d+)\n", server, text)


async def connected(port: int, ca: bytes, token: str, planes: Sequence[Running]) -> int:
    """The number of the control plane that serves a proxy at a port of the balancer; it tries until one does."""
    async with asyncio.timeout(PATIENCE):
        while True:
            async with channel(port, ca) as there:
                proxy = FakeProxy("default.web-01", token, WEB)
                proxy.connect(there)
                with contextlib.suppress(StreamEnded):
                    await proxy.until(functools.partial(proxy.names, TypeUrl.LISTENER))
                    found = next(n for n, plane in enumerate(planes) if WEB.key in plane.parts.proxies)
                    await proxy.disconnect()
                    return found


async def test_who_ends_is_left_out_and_everything_goes_on(postgres: tuple[str, ...], tmp_path: Path) -> None:
    fronts = dict(zip(("5678", "5677", "5682"), free_ports(3), strict=True))
    async with contextlib.AsyncExitStack() as stack:
        stacks = [await stack.enter_async_context(contextlib.AsyncExitStack()) for _ in range(2)]
        certificate = server_certificate.ensure(tmp_path, ["localhost"], datetime.now(UTC))
        planes = [
            await each.enter_async_context(one_of_them(tmp_path / f"cp-{number}", certificate, postgres))
            for number, each in enumerate(stacks)
        ]
        configuration = tmp_path / "haproxy.cfg"
        configuration.write_text(adapted(fronts, [await ports_of(plane) for plane in planes]))
        processes = stack.enter_context(Processes(tmp_path))
        processes.start("haproxy", [haproxy(), "-db", "-f", configuration], {})
        ca, token = planes[0].ca_pem, planes[0].token()
        first = await connected(fronts["5677"], ca, token, planes)
        await stacks[first].aclose()
        left = [planes[1 - first]]
        assert await connected(fronts["5677"], ca, token, left) == 0
        async with httpx.AsyncClient(
            verify=ssl.create_default_context(cafile=tmp_path / "ca.crt"), timeout=PATIENCE
        ) as client:
            answer = await client.get(f"https://localhost:{fronts['5682']}/")
            assert answer.json()["instanceId"] == left[0].parts.coordination.own
