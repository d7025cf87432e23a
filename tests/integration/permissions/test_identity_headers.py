"""What a workload is told about its caller, and what a caller may say of itself."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from tests.fakes.control_plane import ALLOW_ALL, MTLS, Running
from tests.integration.changes import change
from tests.integration.clients import in_the_mesh, own_authority, with_leaf_of
from tests.integration.sidecars import Reader, Sidecar, Sidecars, Writer, exchange, http_status, until

PERMISSIVE = MTLS.replace("type: builtin", "type: builtin, mode: PERMISSIVE")


def spellings(name: str) -> list[str]:
    """A name with hyphens and underscores in every mixture: CGI, WSGI and Rack read all of them as one."""
    first, *others = name.split("-")
    return ["".join((first, *parts)) for parts in itertools.product(*(("-" + o, "_" + o) for o in others))]


CERTIFICATE = [
    *spellings("x-forwarded-client-cert"),
    *spellings("client-cert"),
    *spellings("client-cert-chain"),
]
UNUSUAL = [
    "x.forwarded.client.cert",
    "x~forwarded'client+cert",
    "x-forwarded!client_cert",
    "client.cert",
    "x^envoy.internal",
]
"""To lighttpd, which writes `_` for all but letters and digits, the same as those with hyphens."""
ENVOYS = [
    *spellings("x-envoy-external-address"),
    *spellings("x-envoy-internal"),
    "x-envoy-downstream-service-cluster",
    "x-envoy-downstream-service-node",
    "x-envoy-ip-tags",
    "x-envoy-peer-metadata",
    "x-envoy-peer-metadata-id",
]
COMMANDS = {
    "x-envoy-retry-on": "5xx",
    "x-envoy-max-retries": "50",
    "x-envoy-upstream-alt-stat-name": "lies",
    "x-envoy-upstream-rq-timeout-ms": "1",
    "x-envoy-force-trace": "true",
    "x-envoy-original-path": "/admin",
    "x-envoy-original-dst-host": "127.0.0.1:1",
    "x-envoy-decorator-operation": "lies",
    "x-envoy-attempt-count": "7",
}
KEPT = {
    "x-forwarded-for": "192.0.2.1, 10.0.0.9",
    "x-real-ip": "192.0.2.1",
    "forwarded": "for=192.0.2.1",
    "x-forwarded-host": "shop.example",
    "x-forwarded-proto": "https",
    "x_api_key": "underscores as such are nobody's business",
}
"""What a gateway says of its own clients. Who says it, is in `x-forwarded-client-cert`."""


def forged() -> str:
    lies = [(name, "URI=spiffe://default/admin") for name in (*CERTIFICATE, *UNUSUAL, *ENVOYS)]
    lies += [("X-Forwarded-Client-Cert", "By=x;URI=spiffe://default/admin"), ("X_FORWARDED_CLIENT_CERT", "lies")]
    lies += [("connection", "x-forwarded-client-cert"), *COMMANDS.items(), *KEPT.items()]
    return "".join(f"{name}: {value}\r\n" for name, value in lies)


def told(workload: Sidecar) -> list[tuple[str, str]]:
    """All headers of the last request that say something of its caller, as they arrived."""
    about = ("forwarded", "cert", "envoy", "real")
    return [(name, value) for name, value in workload.heads[-1] if any(word in name.lower() for word in about)]


@pytest.fixture
async def backend(cp: Running, mesh: Sidecars) -> Sidecar:
    await cp.apply(MTLS, ALLOW_ALL)
    return await mesh.start("backend")


async def test_callers_in_the_mesh(cp: Running, mesh: Sidecars, backend: Sidecar, tmp_path: Path) -> None:
    """Through their own proxies, and past them with the certificate in the hand."""
    web = await mesh.start("web", calls=("backend",))
    assert await until("web reaches backend", lambda: web.call("backend")) == 200
    context = in_the_mesh(await with_leaf_of(own_authority(cp), tmp_path))
    for port, tls in ((web.outbounds["backend"], None), (backend.port, context)):
        before = len(backend.heads)
        assert await http_status(port, forged(), tls) == 200
        assert len(backend.heads) == before + 1
        found = told(backend)
        identity = [value for name, value in found if name == "x-forwarded-client-cert"]
        assert len(identity) == 1
        assert "URI=spiffe://default/web" in identity[0]
        assert not any("admin" in value or "lies" in value for _, value in found), found
        assert {name for name, _ in found} - set(KEPT) == {"x-forwarded-client-cert"}
        assert KEPT.items() <= dict(backend.heads[-1]).items()


class Noted(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # no generic when it runs
    """A workload over HTTP/2 that notes all headers of each request that is no question about its health."""

    def __init__(self) -> None:
        self.heads: list[list[tuple[str, str]]] = []

    def service(self, handler_call_details: Any) -> Any:
        self.heads.append([(name, str(value)) for name, value in handler_call_details.invocation_metadata])
        return grpc.unary_unary_rpc_method_handler(_echo)


async def _echo(request: bytes, _: Any) -> bytes:
    return request


async def test_callers_over_http_2(cp: Running, mesh: Sidecars) -> None:
    await cp.apply(MTLS, ALLOW_ALL)
    noted, servers = Noted(), list[Any]()

    async def serve(port: int) -> None:
        server = grpc.aio.server(handlers=(noted,))
        server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        servers.append(server)

    await mesh.start("api", protocol="grpc", workload=serve)
    web = await mesh.start("web", protocol="grpc", calls=("api",))
    lies = [
        (name, "URI=spiffe://default/admin")
        for name in (*CERTIFICATE, *CERTIFICATE, *ENVOYS, "x.forwarded.client.cert")
    ]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{web.outbounds['api']}") as channel:
        open_call: Any = channel.unary_unary
        call = open_call("/test/Echo")

        async def answered() -> bool:
            try:
                return bool(await call(b"x", metadata=(*lies, *COMMANDS.items())) == b"x")
            except grpc.aio.AioRpcError:
                return False

        await until("api answers web", answered)
    about = [(name, value) for name, value in noted.heads[-1] if any(word in name for word in ("cert", "envoy"))]
    ((name, identity),) = about
    assert name == "x-forwarded-client-cert"
    assert "URI=spiffe://default/web" in identity
    assert "admin" not in identity
    for server in servers:
        await server.stop(0)


async def test_callers_in_the_clear(cp: Running, mesh: Sidecars, backend: Sidecar) -> None:
    await change(cp, PERMISSIVE)
    await mesh.converged()
    assert await http_status(backend.port, forged()) == 200
    assert {name for name, _ in told(backend)} <= set(KEPT)
    assert KEPT.items() <= dict(backend.heads[-1]).items()


async def test_callers_over_http_1_0(cp: Running, mesh: Sidecars, backend: Sidecar, tmp_path: Path) -> None:
    """They are answered: nginx calls so if nobody says otherwise. Who calls is told as of everybody else."""
    web = await mesh.start("web", calls=("backend",))
    assert await until("web reaches backend", lambda: web.call("backend")) == 200
    context = in_the_mesh(await with_leaf_of(own_authority(cp), tmp_path))
    for port, tls in ((web.outbounds["backend"], None), (backend.port, context)):
        for request in ("GET / HTTP/1.0\r\n\r\n", f"GET / HTTP/1.0\r\nhost: x\r\n{forged()}\r\n"):
            answer = await exchange(port, request.encode(), tls)
            assert b" 200 " in answer, answer
            (identity,) = [value for name, value in backend.heads[-1] if "client-cert" in name]
            assert "URI=spiffe://default/web" in identity


async def test_no_caller_commands_the_proxy_of_another(cp: Running, backend: Sidecar, tmp_path: Path) -> None:
    """Retries that a caller asks the proxy of the workload for would be requests that nobody else has sent."""
    context = in_the_mesh(await with_leaf_of(own_authority(cp), tmp_path))
    backend.status = 503
    asked = "x-forwarded-for: 10.0.0.1\r\nx-envoy-retry-on: 5xx\r\nx-envoy-max-retries: 5\r\n"
    assert await http_status(backend.port, asked, context) == 503
    assert len(backend.heads) == 1


async def test_a_header_that_is_none_is_not_passed_on(cp: Running, backend: Sidecar, tmp_path: Path) -> None:
    """With a space before the colon, or as the continuation of another."""
    context = in_the_mesh(await with_leaf_of(own_authority(cp), tmp_path))
    for header in (
        "x-forwarded-client-cert : lies",
        "x-forwarded-client-cert\t: lies",
        "a: b\r\n x-forwarded-client-cert: c",
    ):
        request = f"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{header}\r\n\r\n"
        assert await exchange(backend.port, request.encode(), context)
    for head in backend.heads:
        (identity,) = [value for name, value in head if "client-cert" in name]
        assert "URI=spiffe://default/web" in identity


LIE, WORD = b"<{|}~>", b">~}|{<"
"""Values that no HTTP/2 makes shorter, so that they stand in its frames as they are."""


def frame(kind: int, flags: int, content: bytes, stream: int = 1) -> bytes:
    """Makes a frame of HTTP/2 (RFC 9113)."""
    return len(content).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + content


def headers(**values: bytes) -> bytes:
    """Makes a block of headers, each written out (RFC 7541); two underscores are a hyphen, the first a colon."""
    named = {name.replace("__", "-").replace("_", ":", 1).encode(): value for name, value in values.items()}
    return b"".join(bytes((0, len(name))) + name + bytes((len(value),)) + value for name, value in named.items())


async def test_what_comes_after_a_body_does_not_say_who_called(cp: Running, mesh: Sidecars, tmp_path: Path) -> None:
    """Trailers, which some servers take for further headers. Over HTTP/1.1 Envoy passes none on."""
    await cp.apply(MTLS, ALLOW_ALL)
    received, servers = bytearray(), list[asyncio.Server]()

    async def note(reader: Reader, writer: Writer) -> None:
        writer.write(frame(4, 0, b"", stream=0))
        while data := await reader.read(1000):
            received.extend(data)
        writer.close()

    async def serve(port: int) -> None:
        servers.append(await asyncio.start_server(note, "127.0.0.1", port))

    api = await mesh.start("api", protocol="http2", workload=serve)
    tls = in_the_mesh(await with_leaf_of(own_authority(cp), tmp_path))
    _, writer = await asyncio.open_connection("127.0.0.1", api.port, ssl=tls)
    asked = headers(_method=b"POST", _scheme=b"http", _authority=b"x", _path=b"/")
    said = headers(x__forwarded__client__cert=LIE, client__cert=LIE, x__envoy__internal=LIE, last=WORD)
    beginning = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, b"", stream=0)
    writer.write(beginning + frame(1, 4, asked) + frame(0, 0, b"body") + frame(1, 5, said))

    async def has_arrived() -> bool:
        return WORD in received

    await until("the other trailer has arrived", has_arrived)
    writer.close()
    for server in servers:
        server.close()
    assert LIE not in received
