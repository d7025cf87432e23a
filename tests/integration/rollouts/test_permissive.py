"""PERMISSIVE with real Envoys: who gets in, what callers send, and what each inbound counts of whom."""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from demo.processes import free_ports
from kuma.base import aio
from kuma.base.errors import Unauthenticated
from kuma.resources import kinds
from kuma.resources.models.dataplane import Inbound
from kuma.resources.models.mesh_transition import Level
from kuma.xds.envoy import resource_names
from tests.fakes import cas
from tests.fakes.control_plane import ALLOW_ALL, MTLS, Running
from tests.fakes.patience import PATIENCE
from tests.integration.changes import edit_inbounds, revoke, tagged
from tests.integration.sidecars import (
    Reader,
    Sidecar,
    Sidecars,
    Writer,
    exchange,
    http_status,
    traffic,
    until,
)

PERMISSIVE = MTLS.replace("type: builtin", "type: builtin, mode: PERMISSIVE")
WEB_ONLY = (
    "{type: TrafficPermission, mesh: default, name: web-only, sources: [{match: {kuma.io/service: web}}], "
    "destinations: [{match: {kuma.io/service: '*'}}]}"
)
GET = "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
ADDRESS = "127.0.0.1"


@pytest.fixture
def declared() -> tuple[str, ...]:
    return PERMISSIVE, WEB_ONLY


@pytest.fixture
def own_tls(tmp_path: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """TLS that the mesh has nothing to do with: a server's side and a client's."""
    cas.openssl(
        tmp_path, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=app", "-keyout", "app.key",
        "-out", "app.crt", "-days", "1",
    )  # fmt: skip
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "app.crt", tmp_path / "app.key")
    client = ssl.create_default_context(cafile=tmp_path / "app.crt")
    client.check_hostname = False
    return server, client


async def arrived(cp: Running) -> None:
    """Return once all of the mesh is PERMISSIVE."""

    def complete() -> bool:
        transition = cp.parts.views.view("default").transition
        return transition is not None and transition.spec.complete and transition.spec.position.level != Level.PLAIN

    async with asyncio.timeout(PATIENCE):
        await cp.parts.views.until(complete)


async def counters(sidecar: Sidecar, pattern: str) -> dict[str, int]:
    """The statistics of an Envoy whose whole name matches."""
    text = (await exchange_all(sidecar.admin, GET.format(path="/stats").encode())).decode()
    found = dict(re.findall(r"^(\S+): (\d+)$", text, re.MULTILINE))
    return {name: int(value) for name, value in found.items() if re.fullmatch(pattern, name)}


async def exchange_all(port: int, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(ADDRESS, port)
    writer.write(data)
    answer = await reader.read()
    writer.close()
    return answer


async def callers(sidecar: Sidecar, port: int, kind: str = "tcp") -> tuple[int, int, int]:
    """The connections that an inbound has counted: mesh TLS, foreign TLS, plaintext."""
    prefix = resource_names.stat_name(resource_names.inbound_listener(ADDRESS, port))
    found = await counters(sidecar, rf"(tcp|http)\.{prefix}\w*\.downstream_cx_total")
    names = (f"{kind}.{prefix}", f"tcp.{prefix}_foreign_tls", f"{kind}.{prefix}_plaintext")
    mesh, foreign, plaintext = [found.get(f"{name}.downstream_cx_total", 0) for name in names]
    return mesh, foreign, plaintext


async def handshakes(caller: Sidecar, service: str) -> tuple[int, int]:
    """What a caller has counted towards a service: connections, and TLS handshakes."""
    found = await counters(caller, rf"cluster\.{service}\.(upstream_cx_total|ssl\.handshake)")
    return found[f"cluster.{service}.upstream_cx_total"], found.get(f"cluster.{service}.ssl.handshake", 0)


class EitherServer:
    """A workload that speaks TLS of its own to whoever does, and plaintext to all others, on one port."""

    def __init__(self) -> None:
        self._stack = contextlib.AsyncExitStack()

    async def start(self, serve: Callable[[Reader, Writer], Any], context: ssl.SSLContext) -> int:
        """Serve; returns the port."""
        plain, secured, front = free_ports(3)
        for port, tls in ((plain, None), (secured, context)):
            self._closed_at_the_end(await asyncio.start_server(serve, ADDRESS, port, ssl=tls))

        async def choose(reader: Reader, writer: Writer) -> None:
            first = await reader.read(4096)
            if not first:
                writer.close()
                return
            inner = await asyncio.open_connection(ADDRESS, secured if first[0] == 0x16 else plain)
            inner[1].write(first)
            ways = [aio.spawn(_copy(*way), name="way") for way in ((reader, inner[1]), (inner[0], writer))]
            await asyncio.wait(ways)

        self._closed_at_the_end(await asyncio.start_server(choose, ADDRESS, front))
        return front

    def _closed_at_the_end(self, server: asyncio.Server) -> None:
        self._stack.callback(server.close)

    async def close(self) -> None:
        await self._stack.aclose()


async def _copy(reader: Reader, writer: Writer) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(4096):
            writer.write(data)
            await writer.drain()
    writer.close()


@pytest.fixture
async def either() -> AsyncIterator[EitherServer]:
    found = EitherServer()
    yield found
    await found.close()


async def with_inbounds(cp: Running, sidecar: Sidecar, port: int, **more: int) -> None:
    """Give a Dataplane the service port `port`, and `more` inbounds that lead to the same one: service and port."""

    def edited(inbound: Inbound) -> tuple[Inbound, ...]:
        first = inbound.model_copy(update={"service_port": port})
        others = (tagged(first, {"kuma.io/service": service}, port=number) for service, number in more.items())
        return (first, *others)

    await edit_inbounds(cp, sidecar, edited)


async def test_three_kinds_of_callers_at_once_and_each_inbound_counts_its_own(
    cp: Running, mesh: Sidecars, either: EitherServer, own_tls: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    """All connections are open at the same time; a mesh client that is denied is refused among them."""
    server, client = own_tls
    backend = await mesh.start("backend", protocol="tcp")
    (second,) = free_ports(1)
    await with_inbounds(cp, backend, await either.start(backend.serve_tcp, server), second=second)
    web = await mesh.start("web", protocol="tcp", calls=("backend", "second"))
    other = await mesh.start("other", protocol="tcp", calls=("backend",))
    for service in web.outbounds:
        await until(f"web reaches {service}", lambda: web.talk(service))  # noqa: B023
    await arrived(cp)
    await mesh.converged()
    before = [await callers(backend, port) for port in (backend.port, second)]

    opened: list[tuple[Reader, Writer]] = []
    for port, tls, times in (
        (web.outbounds["backend"], None, 1),
        (web.outbounds["second"], None, 2),
        (backend.port, client, 3),
        (backend.port, None, 4),
        (second, client, 5),
        (second, None, 6),
    ):
        opened += [await asyncio.open_connection(ADDRESS, port, ssl=tls) for _ in range(times)]
    for _ in range(2):
        for _, writer in opened:
            writer.write(b"hello")
        answers = await asyncio.gather(*(asyncio.wait_for(reader.read(100), PATIENCE) for reader, _ in opened))
        assert answers == [b"backend:hello"] * 21
        assert await other.talk("backend") == b"", "no permission admits it, whatever others do"

    after = [await callers(backend, port) for port in (backend.port, second)]
    counted = [tuple(b - a for a, b in zip(*pair, strict=True)) for pair in zip(before, after, strict=True)]
    assert counted == [(1 + 2, 3, 4), (2, 5, 6)], "the two that were refused came with mesh TLS, too"
    for _, writer in opened:
        writer.close()


@pytest.mark.parametrize("protocol", ["tcp", "http"])
async def test_a_denied_mesh_client_is_denied_and_an_allowed_one_is_not(
    cp: Running, mesh: Sidecars, protocol: str
) -> None:
    backend = await mesh.start("backend", protocol=protocol)
    web, other = [await mesh.start(name, protocol=protocol, calls=("backend",)) for name in ("web", "other")]
    await arrived(cp)
    admitted, denied = (200, 403) if protocol == "http" else (b"backend:hello", b"")
    assert await until("web reaches backend", lambda: web.ask("backend")) == admitted
    assert await other.ask("backend") == denied
    await cp.apply(ALLOW_ALL)
    await cp.delete(WEB_ONLY)
    await mesh.converged()
    assert (await web.ask("backend"), await other.ask("backend")) == (admitted, admitted)
    await revoke(cp, ALLOW_ALL)
    assert (await web.ask("backend"), await other.ask("backend")) == (denied, denied)
    assert await (http_status(backend.port) if protocol == "http" else exchange(backend.port, b"hello")), "in the clear"


async def test_an_http_inbound_passes_a_workloads_own_tls_on_as_it_is(
    cp: Running, mesh: Sidecars, either: EitherServer, own_tls: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    """The workload itself ends the TLS of its client, which verifies its certificate: Envoy cannot read a byte."""
    server, client = own_tls
    backend = await mesh.start("backend")
    await with_inbounds(cp, backend, await either.start(backend.serve_http, server))
    web = await mesh.start("web", calls=("backend",))
    assert await until("web reaches backend", lambda: web.call("backend")) == 200
    await arrived(cp)
    await mesh.converged()
    _, foreign, plaintext = await callers(backend, backend.port, "http")
    assert await http_status(backend.port, tls=client) == 200
    assert "x-forwarded-proto" not in backend.headers[-1], "no HTTP of Envoy's has touched it"
    assert await http_status(backend.port, "x-forwarded-client-cert: URI=spiffe://default/web\r\n") == 200
    assert "x-forwarded-client-cert" not in backend.headers[-1]
    assert (await callers(backend, backend.port, "http"))[1:] == (foreign + 1, plaintext + 1)


async def test_callers_encrypt_in_permissive_mode(cp: Running, mesh: Sidecars) -> None:
    """Every connection between two proxies is a TLS handshake on both sides, and none is plaintext."""
    web, backend = await mesh.pair("tcp")
    await arrived(cp)
    await mesh.converged()
    connections, before = await handshakes(web, "backend")
    inbound = await callers(backend, backend.port)
    for _ in range(5):
        assert await web.talk("backend") == b"backend:hello"
    assert await handshakes(web, "backend") == (connections + 5, before + 5)
    assert await callers(backend, backend.port) == (inbound[0] + 5, 0, 0)
    listener = resource_names.stat_name(resource_names.inbound_listener(ADDRESS, backend.port))
    served = await counters(backend, rf"listener\.{listener}\.ssl\.handshake")
    assert list(served.values()) == [inbound[0] + 5]


async def test_a_proxy_that_reconnects_is_not_called_in_the_clear(cp: Running, mesh: Sidecars) -> None:
    """Its stream is cut while traffic goes on; then its Envoy is killed and started again."""
    web, backend = await mesh.pair("tcp")
    await arrived(cp)
    await mesh.converged()
    key = kinds.DATAPLANE.key("backend-01", "default")
    first = cp.parts.proxies.get(key)
    assert first is not None
    _, shaken = await handshakes(web, "backend")

    async def back() -> bool:
        now = cp.parts.proxies.get(key)
        return now is not None and now is not first and now.converged

    async def known() -> bool:
        found = await cp.parts.manager.find(kinds.DATAPLANE_INSIGHT.key(key.name, key.mesh))
        return found is not None and found.spec.online and found.spec.mtls is not None

    async with traffic(lambda: web.talk("backend")) as answers:
        first.end(Unauthenticated("the test ends this stream"))
        await until("backend's Envoy has reconnected", back)
        await until("its insight says so", known)
    assert set(answers) == {b"backend:hello"}
    assert (await handshakes(web, "backend"))[1] - shaken >= len(answers), "each answer came over a handshake"
    assert (await callers(backend, backend.port))[1:] == (0, 0)

    first = cp.parts.proxies.get(key)
    async with traffic(lambda: web.talk("backend")):
        backend.running.kill()
        await backend.running.wait()
        await mesh.run(backend)
        await until("its insight says so", known)
    assert await until("web reaches backend again", lambda: web.talk("backend")) == b"backend:hello"
    mutual, foreign, plaintext = await callers(backend, backend.port)
    assert mutual > 0
    assert (foreign, plaintext) == (0, 0), "its new Envoy has seen no connection but mutual TLS"
