"""Clients that show a certificate of the test's choice to an inbound, and look at the server's themselves."""

from __future__ import annotations

import ssl
from pathlib import Path

from kuma.authorities import builtin
from kuma.base.clock import SystemClock
from kuma.pki import issuer
from kuma.pki.authority import LocalAuthority
from kuma.resources.mesh import DEFAULT_LEAF_LIFETIME
from tests.fakes.control_plane import Running


def own_authority(cp: Running) -> LocalAuthority:
    """The mesh's own builtin authority `ca-1`."""
    authority = builtin.open_authority("default", "ca-1", cp.parts.views.view("default").secrets)
    assert isinstance(authority, LocalAuthority)
    return authority


def without_certificate() -> ssl.SSLContext:
    """A client that shows none, and takes any."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


async def with_leaf_of(authority: LocalAuthority, directory: Path) -> ssl.SSLContext:
    """A client that shows a leaf of some authority, for the service `web`, and takes any certificate."""
    identity = await issuer.issue(authority, ("spiffe://default/web",), DEFAULT_LEAF_LIFETIME, SystemClock().now())
    (directory / "leaf.pem").write_bytes(identity.chain_pem + identity.key_pem)
    context = without_certificate()
    context.load_cert_chain(directory / "leaf.pem")
    return context
