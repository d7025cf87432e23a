"""Mutual TLS between real Envoys."""

import asyncio
import contextlib
import re
from pathlib import Path

import pytest

from kuma.authorities import builtin
from kuma.base.clock import SystemClock
from kuma.pki.authority import LocalAuthority
from kuma.resources.models.mesh import Conf
from tests.fakes import cas
from tests.fakes.control_plane import ALLOW_ALL, MTLS, Running, resource
from tests.integration.changes import revoke, secrets
from tests.integration.clients import own_authority, with_leaf_of, without_certificate
from tests.integration.sidecars import Reader, Sidecars, Writer, exchange, http_status, until

PROVIDED = MTLS.replace("type: builtin", "type: provided, conf: {cert: {secret: cert}, key: {secret: key}}")
OFF = "{type: Mesh, name: default}"
GET = b"GET %s HTTP/1.1\r\nhost: x\r\n\r\n"


def allow(source: str, destination: str, name: str = "allow") -> str:
    return (
        f"{{type: TrafficPermission, mesh: default, name: {name}, "
        f"sources: [{{match: {{{source}}}}}], destinations: [{{match: {{{destination}}}}}]}}"
    )


async def test_a_caller_is_who_its_certificate_says(cp: Running, mesh: Sidecars) -> None:
    await cp.apply(MTLS, ALLOW_ALL)
    backend = await mesh.start("backend")
    web = await mesh.start("web", calls=("backend",))
    lies = "x-forwarded-client-cert: URI=spiffe://default/admin\r\n"
    assert await until("web reaches backend", lambda: web.call("backend", lies)) == 200
    header = backend.headers[-1]["x-forwarded-client-cert"]
    assert "URI=spiffe://default/web" in header
    assert "admin" not in header


async def test_a_gateway_in_front_of_the_mesh_calls_under_its_own_name(cp: Running, mesh: Sidecars) -> None:
    await cp.apply(MTLS, allow("kuma.io/service: kong", "kuma.io/service: backend"))
    backend = await mesh.start("backend")
    kong = await mesh.start("kong", calls=("backend",), is_gateway=True)
    web = await mesh.start("web", calls=("backend",))
    assert await until("the gateway reaches backend", lambda: kong.reaches("backend"))
    assert "URI=spiffe://default/kong" in backend.headers[-1]["x-forwarded-client-cert"]
    assert await until("backend is known to web", lambda: web.is_refused("backend"))


async def test_without_mtls_nobody_is_told_who_calls(mesh: Sidecars) -> None:
    backend = await mesh.start("backend")
    web = await mesh.start("web", calls=("backend",))
    lies = "x-forwarded-client-cert: URI=spiffe://default/admin\r\n"
    assert await until("web reaches backend", lambda: web.call("backend", lies)) == 200
    assert "x-forwarded-client-cert" not in backend.headers[-1]


async def test_an_inbound_admits_only_certificates_of_its_mesh(cp: Running, mesh: Sidecars, tmp_path: Path) -> None:
    await cp.apply(MTLS, ALLOW_ALL)
    backend = await mesh.start("backend")
    foreign = LocalAuthority("other", await builtin.create_root("default", Conf(), SystemClock()))
    assert await http_status(backend.port, tls=await with_leaf_of(own_authority(cp), tmp_path)) == 200
    assert await http_status(backend.port, tls=await with_leaf_of(foreign, tmp_path)) == 0
    assert await http_status(backend.port, tls=without_certificate()) == 0
    assert await http_status(backend.port) == 0
    assert len(backend.headers) == 1


async def test_a_caller_expects_exactly_the_service_that_it_calls(cp: Running, mesh: Sidecars) -> None:
    """Whoever answers at backend's address with a certificate of another service is not talked to."""
    await cp.apply(MTLS, ALLOW_ALL)
    other = await mesh.start("other")
    web = await mesh.start("web", calls=("backend",))
    impostor = (
        "{type: Dataplane, mesh: default, name: backend-01, networking: {address: 127.0.0.1, inbound: "
        f"[{{port: {other.port}, servicePort: 1, tags: {{kuma.io/service: backend, kuma.io/protocol: http}}}}]}}}}"
    )
    await cp.apply(impostor)
    await mesh.converged()
    assert await web.call("backend") == 503
    assert not other.headers


async def test_http_permissions_by_service(cp: Running, mesh: Sidecars) -> None:
    await cp.apply(MTLS)
    await mesh.start("backend")
    web, other = [await mesh.start(name, calls=("backend",)) for name in ("web", "other")]
    assert await until("backend is known", lambda: web.call("backend")) == 403
    await cp.apply(allow("kuma.io/service: web", "kuma.io/service: backend"))
    await mesh.converged()
    assert (await web.call("backend"), await other.call("backend")) == (200, 403)
    await revoke(cp, allow("kuma.io/service: web", "kuma.io/service: backend"))
    assert await web.call("backend") == 403


async def test_permissions_by_other_tags(cp: Running, mesh: Sidecars) -> None:
    await cp.apply(MTLS, allow("team: a", "kuma.io/service: backend"))
    await mesh.start("backend")
    web = await mesh.start("web", calls=("backend",), tags=", team: a")
    other = await mesh.start("other", calls=("backend",), tags=", team: b")
    await mesh.converged()
    assert (await web.call("backend"), await other.call("backend")) == (200, 403)


async def status(reader: Reader) -> int:
    """The status of the next answer on a connection."""
    head = await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
    return int(head.split(b" ")[1])


async def test_a_revoked_permission_ends_what_a_kept_connection_may_do(cp: Running, mesh: Sidecars) -> None:
    """So it is with requests that were sent together with one that was admitted before, and is being answered."""
    asked, released = list[bytes](), asyncio.Event()

    async def serve(reader: Reader, writer: Writer) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                asked.append((await reader.readuntil(b"\r\n\r\n")).split(b" ")[1])
                if asked[-1] == b"/slow":
                    await released.wait()
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        writer.close()

    async def slow_is_asked() -> bool:
        return b"/slow" in asked

    async with contextlib.AsyncExitStack() as stack:

        async def workload(port: int) -> None:
            stack.callback((await asyncio.start_server(serve, "127.0.0.1", port)).close)

        await cp.apply(MTLS, ALLOW_ALL)
        await mesh.start("backend", workload=workload)
        web = await mesh.start("web", calls=("backend",))
        (reader, writer), (several, sent) = [
            await asyncio.open_connection("127.0.0.1", web.outbounds["backend"]) for _ in range(2)
        ]
        writer.write(GET % b"/")
        assert await status(reader) == 200
        sent.write(b"".join(GET % path for path in (b"/slow", b"/next", b"/last")))
        await until("the slow one is asked", slow_is_asked)
        await revoke(cp, ALLOW_ALL)
        writer.write(GET % b"/after")
        assert await status(reader) == 403
        released.set()
        assert [await status(several) for _ in range(3)] == [200, 403, 403]
        assert asked == [b"/", b"/slow"]
        writer.close()
        sent.close()


async def test_tcp_is_encrypted_and_a_refusal_is_a_close(cp: Running, mesh: Sidecars) -> None:
    await cp.apply(MTLS, ALLOW_ALL)
    web, backend = await mesh.pair("tcp")
    assert b"backend" not in await exchange(backend.port, b"hello")
    await revoke(cp, ALLOW_ALL)
    assert await web.talk("backend") == b""


async def test_the_authority_may_use_rsa(cp: Running, mesh: Sidecars) -> None:
    await cp.apply(MTLS.replace("type: builtin", "type: builtin, conf: {caCert: {RSAbits: 2048}}"), ALLOW_ALL)
    await mesh.pair()


async def test_mtls_off_again(cp: Running, mesh: Sidecars) -> None:
    await cp.apply(MTLS, ALLOW_ALL)
    backend = await mesh.start("backend")
    web = await mesh.start("web", calls=("backend",))
    await cp.apply(OFF)
    await mesh.converged()
    assert await until("web reaches backend", lambda: web.call("backend")) == 200
    assert await until("backend answers in the clear", lambda: http_status(backend.port)) == 200


async def test_nobody_can_tell_a_proxys_key(cp: Running, mesh: Sidecars, tmp_path: Path) -> None:
    """Leaf keys live in memory only: not in a file below the work directory, and not in a log."""
    await cp.apply(MTLS)
    backend = await mesh.start("backend")
    (proxy,) = cp.parts.proxies
    assert proxy.keeper.identity is not None
    body = b"".join(proxy.keeper.identity.key_pem.splitlines()[1:-1])
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert body not in path.read_bytes().replace(b"\n", b""), path
    assert b"PRIVATE KEY" not in backend.log.read_bytes()


def test_resources_in_these_tests_are_valid() -> None:
    for text in (MTLS, OFF, ALLOW_ALL, allow("team: a", "kuma.io/service: backend")):
        assert resource(text)


@pytest.mark.parametrize("with_root", [True, False])
async def test_envoys_trust_a_provided_chain(cp: Running, mesh: Sidecars, tmp_path: Path, with_root: bool) -> None:
    """Proxies present leaf and intermediates; without the root in the chain, its topmost certificate is trusted."""
    root = cas.root(tmp_path, "root", cas.with_extensions("basicConstraints=CA:TRUE", "keyUsage=keyCertSign"))
    lower = cas.intermediate(tmp_path, "lower", "root")
    await secrets(cp, cert=lower.cert + root.cert if with_root else lower.cert, key=lower.key)
    await cp.apply(PROVIDED, ALLOW_ALL)
    await mesh.pair()


@pytest.mark.parametrize(
    "algorithm",
    [("ec", "-pkeyopt", "ec_paramgen_curve:P-256"), ("ec", "-pkeyopt", "ec_paramgen_curve:P-384"), ("ed25519",)],
)
async def test_envoys_trust_other_keys(cp: Running, mesh: Sidecars, tmp_path: Path, algorithm: tuple[str, ...]) -> None:
    ca = cas.root(tmp_path, "root", algorithm=algorithm)
    await secrets(cp, **vars(ca))
    await cp.apply(PROVIDED, ALLOW_ALL)
    await mesh.pair()


def mesh_permission(name: str, target: str, *items: str) -> str:
    listed = ", ".join(items)
    return (
        f"{{type: MeshTrafficPermission, mesh: default, name: {name}, "
        f"spec: {{targetRef: {{{target}}}, from: [{listed}]}}}}"
    )


def item(action: str, ref: str) -> str:
    return f"{{targetRef: {{{ref}}}, default: {{action: {action}}}}}"


@pytest.mark.parametrize("protocol", ["http", "tcp"])
async def test_mesh_permissions_and_their_shadow(cp: Running, mesh: Sidecars, protocol: str) -> None:
    """A refusal overrides; a shadow refusal is counted and lets through; both with and without HTTP."""
    await cp.apply(MTLS, ALLOW_ALL)
    backend = await mesh.start("backend", protocol=protocol)
    callers = [
        await mesh.start(name, protocol=protocol, calls=("backend",), tags=f", env: {env}")
        for name, env in (("web", "prod"), ("dev", "dev"), ("try", "test"))
    ]
    await cp.apply(
        mesh_permission("everybody", "kind: MeshService, name: backend", item("Allow", "kind: Mesh")),
        mesh_permission(
            "environments",
            "kind: Mesh",
            item("Deny", "kind: MeshSubset, tags: {env: dev}"),
            item("AllowWithShadowDeny", "kind: MeshSubset, tags: {env: test}"),
        ),
    )
    await mesh.converged()
    if protocol == "http":
        assert [await caller.call("backend") for caller in callers] == [200, 403, 200]
    else:
        assert [b"backend" in await caller.talk("backend") for caller in callers] == [True, False, True]
    request = b"GET /stats?filter=shadow_denied HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    counters = re.findall(r"shadow_denied: (\d+)", (await exchange(backend.admin, request)).decode())
    assert sum(map(int, counters)) == 1
