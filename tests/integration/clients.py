"""Clients that show a certificate of the test's choice to an inbound, and look at the server's themselves."""

from __future__ import annotations

import ssl
from datetime import timedelta
from pathlib import Path

from kuma.authorities import builtin
from kuma.base.clock import SystemClock
from kuma.pki import issuer
from kuma.pki.authority import LocalAuthority
from kuma.resources.models.mesh import DEFAULT_LEAF_LIFETIME
from kuma.xds.envoy.tls import ALPN
from tests.fakes.control_plane import Running


def own_authority(cp: Running, backend: str = "ca-1") -> LocalAuthority:
    """A builtin authority of the mesh."""
    authority = builtin.open_authority("default", backend, cp.parts.views.view("default").secrets)
    assert isinstance(authority, LocalAuthority)
    return authority


def without_certificate() -> ssl.SSLContext:
    """A client that shows none, and takes any."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


async def with_leaf_of(authority: LocalAuthority, directory: Path, *uris: str, expired: bool = False) -> ssl.SSLContext:
    """A client that shows a leaf of some authority, and takes any certificate.

    The leaf is for the service `web` unless `uris` say something else.
    """
    age, lifetime = (timedelta(minutes=20), timedelta(minutes=10)) if expired else (timedelta(), DEFAULT_LEAF_LIFETIME)
    names = uris or ("spiffe://default/web",)
    identity = await issuer.issue(authority, names, lifetime, SystemClock().now() - age)
    (directory / "leaf.pem").write_bytes(identity.chain_pem + identity.key_pem)
    context = without_certificate()
    context.load_cert_chain(directory / "leaf.pem")
    return context


def in_the_mesh(context: ssl.SSLContext) -> ssl.SSLContext:
    """The same client, which says that it is one of the mesh."""
    context.set_alpn_protocols([ALPN])
    return context
