"""Workloads in the test's own process, each behind a real Envoy that a real `kuma-dp` runs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sized
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx

from demo.processes import BIN, free_ports
from kuma.base import aio
from kuma.base.tls.trust import NOBODY
from tests.fakes.control_plane import Running
from tests.fakes.patience import PATIENCE

BETWEEN_CALLS = 0.012
"""Seconds. A call, with a handshake of two Envoys, takes 2 to 3 milliseconds of a core: without a pause, all of one
that the tests beside it need. Some sixty a second come at every step of a change, and fail as surely as more would."""
Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter


async def until(what: str, ask: Callable[[], Awaitable[Any]], seconds: float = PATIENCE) -> Any:
    """What `ask` answers once it answers something true."""
    answer = None
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while not (answer := await ask()):
                await asyncio.sleep(0.05)
            return answer
    raise AssertionError(f"{what}: not within {seconds} seconds; the last answer was {answer!r}")


class Sidecar:
    """One workload with its proxy."""

    def __init__(self, name: str, protocol: str, port: int, outbounds: dict[str, int], admin: int, log: Path) -> None:
        self.name, self.protocol, self.port, self.outbounds, self.admin, self.log = (
            name, protocol, port, outbounds, admin, log,
        )  # fmt: skip
        self.process: asyncio.subprocess.Process | None = None
        self.headers: list[dict[str, str]] = []
        self.heads: list[list[tuple[str, str]]] = []
        """The headers of every request over HTTP as they came, also those that came twice."""
        self.status = 200
        self.delay = 0.0
        self.greeting = b""
        """What its workload says over TCP before it has heard anything."""
        self.reached = 0
        """The connections over TCP that its workload has seen."""

    @property
    def running(self) -> asyncio.subprocess.Process:
        assert self.process is not None
        return self.process

    @property
    def envoy(self) -> int:
        """The process of its Envoy."""
        (envoy,) = self.envoys
        return envoy

    @property
    def envoys(self) -> list[int]:
        """None before `kuma-dp` has begun its Envoy; others that it begins say a version, or guard the contact."""
        children = children_of(self.running.pid)
        return [child for child in children if b"--config-path" in Path(f"/proc/{child}/cmdline").read_bytes()]

    @contextlib.contextmanager
    def hung(self) -> Iterator[None]:
        """Its Envoy hears and says nothing for as long as the block lasts."""
        envoy = self.envoy
        os.kill(envoy, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(envoy, signal.SIGCONT)

    async def says(self, path: str) -> Any:
        """What its Envoy says of itself over its administration, in JSON."""
        async with httpx.AsyncClient(verify=NOBODY, trust_env=False, timeout=PATIENCE) as client:
            return (await client.get(f"http://127.0.0.1:{self.admin}{path}")).json()

    async def leaf(self) -> dict[str, Any]:
        """The one leaf that its Envoy has loaded, as Envoy says: `serial_number`, `expiration_time` and more."""
        loaded = (await self.says("/certs"))["certificates"]
        found = {c["serial_number"]: c for one in loaded for c in one.get("cert_chain", ())}
        (leaf,) = found.values()
        return dict(leaf)

    async def serve_http(self, reader: Reader, writer: Writer) -> None:
        """A workload that remembers the headers of every request, and answers with its own name."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                lines = head.split("\r\n")[1:-2]
                came = [(name, value) for name, _, value in (line.partition(": ") for line in lines)]
                self.heads.append(came)
                self.headers.append({name.lower(): value for name, value in came})
                await asyncio.sleep(self.delay)
                writer.write(
                    f"HTTP/1.1 {self.status} -\r\ncontent-length: {len(self.name)}\r\n\r\n{self.name}".encode()
                )
                await writer.drain()
        writer.close()

    async def serve_tcp(self, reader: Reader, writer: Writer) -> None:
        """A workload that greets, and sends back what it gets, after its own name."""
        self.reached += 1
        writer.write(self.greeting)
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1000):
                writer.write(f"{self.name}:".encode() + data)
                await writer.drain()
        writer.close()

    async def call(self, service: str, headers: str = "") -> int:
        """Call another service over HTTP on a new connection: the status, 0 if there was no answer."""
        return await http_status(self.outbounds[service], headers)

    async def talk(self, service: str) -> bytes:
        """Send something to another service over TCP: what came back."""
        return await exchange(self.outbounds[service], b"hello")

    async def ask(self, service: str) -> int | bytes:
        """Call or talk to a service that has the same protocol: false if there was no answer."""
        return await (self.call(service) if self.protocol == "http" else self.talk(service))

    async def reaches(self, service: str) -> bool:
        """Whether a service answers as it should."""
        return await self.ask(service) in (200, f"{service}:hello".encode())

    async def is_refused(self, service: str) -> bool:
        """Whether a service says that it is not permitted: with 403, or over TCP by closing the connection."""
        return await self.ask(service) in (403, b"")


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def exchange(port: int, data: bytes, tls: ssl.SSLContext | None = None) -> bytes:
    """Connect, send, and read once; empty if the other side closes."""
    try:
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
            try:
                writer.write(data)
                await writer.drain()
                return await reader.read(4096)
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except (OSError, TimeoutError):
        return b""


async def http_status(port: int, headers: str = "", tls: ssl.SSLContext | None = None) -> int:
    """The status of a GET on a new connection; 0 if there was no answer."""
    request = f"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n"
    answer = await exchange(port, request.encode(), tls)
    return int(answer.split(b" ")[1]) if answer.startswith(b"HTTP/1.1 ") else 0


class Sidecars:
    """Starts sidecars and ends them with the test."""

    def __init__(self, cp: Running, directory: Path) -> None:
        self._cp = cp
        self._directory = directory
        self._stack = contextlib.AsyncExitStack()
        self.started: list[Sidecar] = []
        self.options: tuple[str, ...] = ()
        """Further ones of `kuma-dp`, for those that are started from now on."""
        self.valid_for = timedelta(days=3650)
        """How long the tokens are valid of those that are started from now on."""
        self.token: Callable[[str], str] = lambda name: cp.token(name=name, valid_for=self.valid_for)
        """Makes the token of the Dataplane of a name."""

    async def start(
        self,
        name: str,
        *,
        calls: tuple[str, ...] = (),
        protocol: str = "http",
        tags: str = "",
        address: str = "127.0.0.1",
        service: str = "",
        is_gateway: bool = False,
        inbound: str = "",
        workload: Callable[[int], Awaitable[None]] | None = None,
    ) -> Sidecar:
        """A workload called `name` with its proxy; returns once the proxy has its configuration.

        A gateway, one that is not Envoy's, calls services and is called by none. `inbound` is what else the inbound
        says. `workload` serves at a port, in place
        of the one that the protocol has.
        """
        ports = free_ports(3 + len(calls))
        sidecar = Sidecar(
            name,
            protocol,
            ports[0],
            dict(zip(calls, ports[3:], strict=True)),
            ports[2],
            self._directory / f"{name}.log",
        )
        if workload is not None:
            await workload(ports[1])
        else:
            serve = sidecar.serve_http if protocol == "http" else sidecar.serve_tcp
            server = await asyncio.start_server(serve, "127.0.0.1", ports[1])
            self._stack.callback(server.close)
        self.started.append(sidecar)
        shown = f"kuma.io/service: {service or name}, kuma.io/protocol: {protocol}{tags}"
        outbound = ", ".join(
            f"{{port: {port}, tags: {{kuma.io/service: {s}}}}}" for s, port in sidecar.outbounds.items()
        )
        served = f"port: {sidecar.port}, serviceAddress: 127.0.0.1, servicePort: {ports[1]}"
        inbounds = f"inbound: [{{{served}, tags: {{{shown}}}{inbound}}}]"
        gateway = f"gateway: {{type: DELEGATED, tags: {{kuma.io/service: {service or name}{tags}}}}}"
        (self._directory / f"{name}.yaml").write_text(
            f"{{type: Dataplane, mesh: default, name: {name}-01, networking: {{address: {address}, "
            f"admin: {{port: {sidecar.admin}}}, {gateway if is_gateway else inbounds}, outbound: [{outbound}]}}}}"
        )
        await self.run(sidecar)
        return sidecar

    async def pair(self, protocol: str = "http") -> tuple[Sidecar, Sidecar]:
        """`web` and `backend`; the first answer that the one gets from the other is as it should be."""
        backend = await self.start("backend", protocol=protocol)
        web = await self.start("web", protocol=protocol, calls=("backend",))
        assert await until("web reaches backend", lambda: web.ask("backend")) in (200, b"backend:hello")
        return web, backend

    async def run(self, sidecar: Sidecar) -> None:
        """(Re)start the `kuma-dp` of a sidecar; returns once the proxy has its configuration."""
        token = self._directory / f"{sidecar.name}-token"
        token.write_text(self.token(f"{sidecar.name}-01"))
        with sidecar.log.open("ab") as log:
            sidecar.process = await asyncio.create_subprocess_exec(
                BIN / "kuma-dp",
                "run",
                f"--cp-address=https://localhost:{await self._cp.parts.dp.port()}",
                f"--dataplane-file={self._directory / sidecar.name}.yaml",
                f"--dataplane-token-file={token}",
                f"--ca-cert-file={self._directory / 'ca.crt'}",
                "--concurrency=1",
                "--drain-time=3s",
                *self.options,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._stack.push_async_callback(self._end, sidecar.process)
        await until(f"{sidecar.name} has its configuration", lambda: self._is_converged(sidecar))

    async def _is_converged(self, sidecar: Sidecar) -> bool:
        assert sidecar.running.returncode is None, sidecar.log.read_text()[-3000:]
        return any(p.key.name == f"{sidecar.name}-01" and p.converged for p in self._cp.parts.proxies)

    async def converged(self) -> None:
        """Return once every connected proxy runs what it should, and its leaf shows what permissions look at."""
        await until("all proxies have converged", self._all_converged)

    async def _all_converged(self) -> bool:
        configs = [self._cp.parts.meshes.state(mesh).config for mesh in {p.key.mesh for p in self._cp.parts.proxies}]
        # Until then the permissions before decide about connections: see kuma.policy.succession.
        shown = all(config.selected <= config.stage.shown for config in configs)
        return shown and all(proxy.converged for proxy in self._cp.parts.proxies)

    @staticmethod
    async def _end(process: asyncio.subprocess.Process) -> None:
        if process.returncode is None:
            for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGCONT):  # it may be stopped
                process.send_signal(number)
            await process.wait()

    async def close(self) -> None:
        await self._stack.aclose()


@contextlib.asynccontextmanager
async def sidecars(cp: Running, directory: Path) -> AsyncIterator[Sidecars]:
    """Sidecars of a control plane whose work directory is `directory`."""
    found = Sidecars(cp, directory)
    try:
        yield found
    finally:
        await found.close()


async def more(answers: Sized, count: int = 30) -> None:
    """Return once so many more calls have been answered."""
    enough = len(answers) + count

    async def answered() -> bool:
        return len(answers) >= enough

    await until(f"{count} more answers", answered)


@contextlib.asynccontextmanager
async def traffic(call: Callable[[], Awaitable[Any]]) -> AsyncIterator[list[Any]]:
    """Calls one after the other, for as long as the block lasts; collects the answers."""
    answers: list[Any] = []

    async def go_on() -> None:
        while True:
            answers.append(await call())
            await asyncio.sleep(BETWEEN_CALLS)

    task = aio.spawn(go_on(), name="traffic")
    try:
        yield answers
    finally:
        await aio.stop([task])
