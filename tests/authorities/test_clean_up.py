"""Secrets of authorities that are no longer listed."""

import asyncio
import json
from pathlib import Path

import pytest
from cryptography import x509

from kuma.authorities import builtin
from kuma.authorities.clean_up import unused_secrets
from kuma.base.clock import SystemClock
from kuma.base.errors import InvalidResource
from kuma.resources import kinds
from kuma.resources.models.mesh import Conf
from kuma.resources.models.secret import SecretSpec
from kuma.resources.resource import Resource
from kuma.store.protocol import Delete
from tests.fakes.cas import root
from tests.fakes.control_plane import MTLS, Running, dataplane, resource, running
from tests.fakes.patience import PATIENCE
from tests.fakes.proxy import FakeProxy

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
        await cp.looked_around()
        assert authorities(cp) == {"ca-1", "ca-2"}
        await web.disconnect()
        web = await cp.proxy(dataplane("web-01", "web"))
        async with asyncio.timeout(PATIENCE):
            await cp.parts.views.until(lambda: authorities(cp) == {"ca-2"})


async def test_they_go_from_a_mesh_that_never_had_mutual_tls(tmp_path: Path) -> None:
    off = MTLS.replace("enabledBackend: ca-1, ", "")
    async with running(tmp_path) as cp:
        await cp.apply(off)
        first = pair(cp)
        assert len(first) == 2
        await cp.apply("{type: Mesh, name: default}")
        async with asyncio.timeout(PATIENCE):
            await cp.parts.views.until(lambda: not authorities(cp))
        await cp.apply(off)
        assert len(pair(cp)) == 2
        assert not pair(cp) & first


async def test_secrets_that_are_put_back_before_their_mesh_stay(tmp_path: Path) -> None:
    """As `kumactl apply` does with what `kumactl export` has written."""
    secrets = builtin.to_secrets("default", "ca-1", await builtin.create_root("default", Conf(), SystemClock()))
    async with running(tmp_path) as cp:
        for secret in secrets:
            await cp.apply_resource(secret)
        await cp.looked_around()
        await cp.apply(MTLS)
        assert pair(cp) == {secret.spec.data for secret in secrets}


def pair(cp: Running) -> set[bytes]:
    secrets = cp.parts.views.view("default").secrets
    return {secret.spec.data for name, secret in secrets.items() if ".ca-builtin-" in name}


async def test_an_edit_that_the_transition_has_not_seen_yet_removes_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as cp:
        await cp.apply(MTLS)
        await cp.parts.views.until(lambda: complete(cp))
        view = cp.parts.views.view("default")
        assert unused_secrets(view.having(resource(OTHER))) == ()


def complete(cp: Running) -> bool:
    transition = cp.parts.views.view("default").transition
    return transition is not None and transition.spec.complete


async def test_until_they_go_a_restarted_control_plane_issues_from_them(tmp_path: Path) -> None:
    async with running(tmp_path) as cp:
        await cp.apply(MTLS)
        web = await hung_proxy(cp)
        await cp.apply(OTHER)
        await cp.parts.views.until(lambda: len(cp.parts.views.view("default").position.roots) == 2)
        before = issuer(web.certificate)
    async with running(tmp_path) as cp:  # which waits a while for web-01, and changes nothing before
        newcomer = await cp.proxy(dataplane("backend-01", "backend"))
        await newcomer.until(lambda: newcomer.certificate)
        assert issuer(newcomer.certificate) == before


async def test_an_authority_that_is_lost_does_not_hold_up_the_change_away_from_it(
    tmp_path: Path,
) -> None:
    ca = root(tmp_path, "given")
    inline = {"cert": {"inlineString": ca.cert}, "key": {"inlineString": ca.key}}
    provided = {"name": "given", "type": "provided", "conf": inline}
    async with running(tmp_path) as cp:
        await cp.apply(
            json.dumps({"type": "Mesh", "name": "default", "mtls": {"enabledBackend": "given", "backends": [provided]}})
        )
        await hung_proxy(cp)
        await cp.apply(MTLS)
        await cp.parts.views.until(lambda: len(cp.parts.views.view("default").position.roots) == 2)
        kept = kinds.SECRET.key("default.ca-kept", "default")
        with pytest.raises(InvalidResource, match="until its change of mutual TLS is complete"):
            await cp.parts.manager.delete(kept)
        await cp.parts.manager.store.transact([Delete(kept)])
    async with running(tmp_path) as cp:
        web = await cp.proxy(dataplane("web-01", "web"))
        await web.until(lambda: web.certificate)
        assert "given" not in issuer(web.certificate)
        async with asyncio.timeout(PATIENCE):
            await cp.parts.views.until(lambda: complete(cp))


async def test_what_issues_still_is_not_taken_away_though_it_is_listed_no_more(tmp_path: Path) -> None:
    async with running(tmp_path) as cp:
        await cp.apply(MTLS)
        await hung_proxy(cp)
        await cp.apply(OTHER)
        await cp.parts.views.until(lambda: len(cp.parts.views.view("default").position.roots) == 2)
        used, other = (kinds.SECRET.key(f"default.ca-builtin-key-{name}", "default") for name in ("ca-1", "made-up"))
        with pytest.raises(InvalidResource, match="until its change of mutual TLS is complete"):
            await cp.parts.manager.delete(used)
        with pytest.raises(InvalidResource, match="is removed then without you"):
            await cp.parts.manager.put(Resource(used, SecretSpec(data=b"nonsense")))
        await cp.parts.manager.put(Resource(other, SecretSpec(data=b"nonsense")))
        await cp.parts.manager.delete(other)


async def hung_proxy(cp: Running) -> FakeProxy:
    """A proxy that has its first certificate and acknowledges nothing any more."""
    web = await cp.proxy(dataplane("web-01", "web"))
    await web.until(lambda: web.certificate)
    await cp.settled(1)
    await cp.parts.views.until(lambda: complete(cp))
    web.silent = True
    return web


def issuer(leaf: bytes) -> str:
    """Who has signed a certificate: the name, and the identifier of the key."""
    certificate = x509.load_pem_x509_certificate(leaf)
    key = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier or b""
    return f"{certificate.issuer.rfc4514_string()} {key.hex()}"
