"""A control plane that is started in the middle of a change goes on issuing from the authority that issues."""

import asyncio
import base64
from pathlib import Path

from cryptography import x509

from soak.authorities import Provided, Root
from tests.fakes.control_plane import ALLOW_ALL, Running, dataplane, running
from tests.fakes.patience import PATIENCE

WEB = dataplane("web-01", "web")
PROVIDED = (
    "{type: Mesh, name: default, mtls: {enabledBackend: own, backends: "
    "[{name: own, type: provided, conf: {cert: {secret: cert}, key: {secret: key}}}]}}"
)
ANOTHER = "{type: Mesh, name: default, mtls: {enabledBackend: ca-1, backends: [{name: ca-1, type: builtin}]}}"
KEPT = "default.ca-kept"


async def put(cp: Running, name: str, data: bytes) -> None:
    await cp.apply(f"{{type: Secret, mesh: default, name: {name}, data: {base64.b64encode(data).decode()}}}")


def issuer(chain: bytes) -> x509.Name:
    return x509.load_pem_x509_certificate(chain).issuer


async def until_gone(cp: Running) -> None:
    await cp.parts.views.until(lambda: KEPT not in cp.parts.views.view("default").secrets)


async def begun(directory: Path, one: Provided) -> None:
    """A mesh that runs on one authority."""
    async with running(directory) as cp:
        await put(cp, "cert", one.chain)
        await put(cp, "key", one.key)
        await cp.apply(PROVIDED, ALLOW_ALL)
        web = await cp.proxy(WEB)
        await web.until(lambda: web.certificate)
        await cp.settled(1)


async def test_a_restart_between_the_two_secrets_of_a_pair(tmp_path: Path) -> None:
    one, two = Root("one").itself(), Root("two").itself()
    await begun(tmp_path, one)
    async with running(tmp_path) as cp:
        await put(cp, "cert", two.chain)
        assert KEPT in cp.parts.views.view("default").secrets
    async with running(tmp_path) as cp:
        web = await cp.proxy(WEB)
        await web.until(lambda: web.certificate)
        assert issuer(web.certificate) == x509.load_pem_x509_certificate(one.chain).subject
        await put(cp, "key", two.key)
        await web.until(lambda: issuer(web.certificate) == x509.load_pem_x509_certificate(two.chain).subject)
        async with asyncio.timeout(PATIENCE):
            await until_gone(cp)


async def test_a_restart_after_the_authority_was_removed_with_its_secrets(tmp_path: Path) -> None:
    one = Root("one").itself()
    await begun(tmp_path, one)
    async with running(tmp_path) as cp:
        web = await cp.proxy(WEB)
        await web.until(lambda: web.certificate)
        web.silent = True  # so that the change cannot go on
        await cp.apply(ANOTHER)
        for name in ("cert", "key"):
            await cp.delete(f"{{type: Secret, mesh: default, name: {name}, data: ''}}")
    async with running(tmp_path) as cp:
        other = dataplane("db-01", "db")
        db = await cp.proxy(other)
        await db.until(lambda: db.certificate)
        web = await cp.proxy(WEB)
        await web.until(lambda: web.certificate)
        await web.until(lambda: issuer(web.certificate) != x509.load_pem_x509_certificate(one.chain).subject)
        async with asyncio.timeout(PATIENCE):
            await until_gone(cp)
