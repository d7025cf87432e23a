"""The `builtin` backend: the control plane makes the root itself and keeps it in two Secrets of the mesh."""

from __future__ import annotations

import asyncio
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from kuma.base.clock import Clock
from kuma.pki import pem
from kuma.pki.authority import Authority, AuthorityUnusable, LocalAuthority
from kuma.pki.x509 import CaPair, PrivateKey, build_root, certificate_pem, key_pem
from kuma.resources import kinds
from kuma.resources.mesh import Conf
from kuma.resources.resource import Resource
from kuma.resources.secret import Secrets, SecretSpec


def secret_names(mesh: str, backend: str) -> tuple[str, str]:
    """The Secrets that hold the certificate and the key."""
    return f"{mesh}.ca-builtin-cert-{backend}", f"{mesh}.ca-builtin-key-{backend}"


def stored(mesh: str, secrets: Secrets) -> frozenset[str]:
    """The backends of which a Secret exists, listed in the Mesh or not."""
    prefixes = secret_names(mesh, "")
    return frozenset(name.removeprefix(p) for name in secrets for p in prefixes if name.startswith(p))


async def create_root(mesh: str, conf: Conf, clock: Clock) -> CaPair:
    """A new root for a mesh: ECDSA P-256, or RSA if its size is configured."""
    ca_cert = conf.ca_cert
    key: PrivateKey
    if ca_cert.rsa_bits is None:
        key = ec.generate_private_key(ec.SECP256R1())
    else:  # takes seconds: not on the event loop
        key = await asyncio.to_thread(rsa.generate_private_key, 65537, ca_cert.rsa_bits)
    return CaPair(build_root(mesh, key, clock.now(), ca_cert.lifetime), key)


def to_secrets(mesh: str, backend: str, pair: CaPair) -> tuple[Resource[Any], Resource[Any]]:
    """The two Secrets of a root."""
    cert_name, key_name = secret_names(mesh, backend)
    return (
        Resource(kinds.SECRET.key(cert_name, mesh), SecretSpec(data=certificate_pem(pair.certificate))),
        Resource(kinds.SECRET.key(key_name, mesh), SecretSpec(data=key_pem(pair.key))),
    )


def content(mesh: str, backend: str, secrets: Secrets) -> tuple[bytes, bytes]:
    """Certificate and key as they are stored.

    Raises:
        AuthorityUnusable: one is missing.
    """
    cert_name, key_name = secret_names(mesh, backend)
    return _data(secrets, cert_name, mesh), _data(secrets, key_name, mesh)


def open_authority(mesh: str, backend: str, secrets: Secrets) -> Authority:
    """The authority whose root the mesh's Secrets hold.

    Raises:
        AuthorityUnusable: a Secret is missing or broken, or the two do not belong together.
    """
    cert_name, key_name = secret_names(mesh, backend)
    cert, key_in_pem = content(mesh, backend, secrets)
    try:
        certificate = pem.read_chain(cert)[0]
    except AuthorityUnusable:
        raise AuthorityUnusable(_BROKEN.format(name=cert_name, mesh=mesh, what="a PEM certificate")) from None
    try:
        key = pem.read_key(key_in_pem)
    except AuthorityUnusable:
        raise AuthorityUnusable(_BROKEN.format(name=key_name, mesh=mesh, what="a PEM private key")) from None
    try:
        pem.check_pair(certificate, key)
    except AuthorityUnusable:
        raise AuthorityUnusable(
            f'Secrets "{cert_name}" and "{key_name}" in mesh "{mesh}" do not belong together: '
            "the private key does not match the certificate. Put back the pair from a backup"
        ) from None
    with pem.readable(f'Secret "{cert_name}" in mesh "{mesh}" does not hold a CA'):
        return LocalAuthority(backend, CaPair(certificate, key))


_BROKEN = 'Secret "{name}" in mesh "{mesh}" does not hold {what}. Put it back from a backup'


def _data(secrets: Secrets, name: str, mesh: str) -> bytes:
    if name not in secrets:
        raise AuthorityUnusable(f'Secret "{name}" in mesh "{mesh}" is missing. Put it back from a backup')
    return secrets[name].spec.data
