"""The `builtin` backend: the control plane makes the root itself and keeps it in two Secrets of the mesh."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from kuma.authorities.driver import Content, Driver, Root
from kuma.authorities.local import local_authority
from kuma.base.clock import Clock
from kuma.base.errors import Conflict, InvalidResource
from kuma.base.long_work import one_by_one
from kuma.pki import pem
from kuma.pki.authority import Authority, AuthorityUnusable
from kuma.pki.leaf_rotation import rotation_time
from kuma.pki.x509 import CaPair, PrivateKey, build_root, certificate_pem, key_pem
from kuma.resources import kinds
from kuma.resources.models.mesh import Backend, Conf
from kuma.resources.models.secret import Secrets, SecretSpec
from kuma.resources.resource import Resource
from kuma.resources.view import MeshView
from kuma.store.protocol import AnyResource, Store, find
from kuma.store.rehearsal import Rehearsal


def secret_names(mesh: str, backend: str) -> tuple[str, str]:
    """Returns the Secrets that hold the certificate and the key."""
    return f"{mesh}.ca-builtin-cert-{backend}", f"{mesh}.ca-builtin-key-{backend}"


async def create_root(mesh: str, conf: Conf, clock: Clock) -> CaPair:
    """Returns a new root for a mesh: ECDSA P-256, or RSA if its size is configured."""
    bits, lifetime = conf.ca_cert.rsa_bits, conf.ca_cert.lifetime
    if bits is None:
        return _self_signed(mesh, ec.generate_private_key(ec.SECP256R1()), clock.now(), lifetime)
    key = await one_by_one(rsa.generate_private_key, 65537, bits)  # takes seconds
    return await asyncio.to_thread(_self_signed, mesh, key, clock.now(), lifetime)


def _self_signed(mesh: str, key: PrivateKey, now: datetime, lifetime: timedelta) -> CaPair:
    return CaPair(build_root(mesh, key, now, lifetime), key)


@functools.cache
def _stand_in_key() -> PrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _stand_in(mesh: str, conf: Conf, clock: Clock) -> CaPair:
    """Returns what stands for a new root where nothing is stored: its key is one for all, and quickly made."""
    return _self_signed(mesh, _stand_in_key(), clock.now(), conf.ca_cert.lifetime)


def to_secrets(mesh: str, backend: str, pair: CaPair) -> tuple[Resource[Any], Resource[Any]]:
    """Returns the two Secrets of a root."""
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
    if cert_name not in secrets and key_name not in secrets:  # in Kubernetes a Mesh is there before them
        raise AuthorityUnusable(
            f'Secrets "{cert_name}" and "{key_name}" in mesh "{mesh}" are not there. On Kubernetes they are made as '
            "soon as the Mesh is seen; elsewhere put them back from a backup"
        )
    return _data(secrets, cert_name, mesh), _data(secrets, key_name, mesh)


def open_authority(mesh: str, backend: str, secrets: Secrets) -> Authority:
    """Returns the authority whose root the mesh's Secrets hold.

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
        return local_authority(backend, CaPair(certificate, key))


_BROKEN = 'Secret "{name}" in mesh "{mesh}" does not hold {what}. Put it back from a backup'


def _data(secrets: Secrets, name: str, mesh: str) -> bytes:
    if name not in secrets:
        raise AuthorityUnusable(f'Secret "{name}" in mesh "{mesh}" is missing. Put it back from a backup')
    return secrets[name].spec.data


class Builtin(Driver):
    """The driver of `builtin`."""

    makes_root = True

    def content(self, mesh: str, backend: Backend, secrets: Secrets) -> Content:
        return tuple(secrets[name].spec.data if name in secrets else None for name in self.used_secrets(mesh, backend))

    def open(self, mesh: str, backend: Backend, secrets: Secrets) -> Authority:
        return open_authority(mesh, backend.name, secrets)

    def used_secrets(self, mesh: str, backend: Backend) -> tuple[str, ...]:
        return secret_names(mesh, backend.name)

    def halves(self, mesh: str, backend: Backend) -> tuple[str, str]:
        return secret_names(mesh, backend.name)

    def pair(self, mesh: str, backend: Backend, secrets: Secrets) -> tuple[bytes, bytes]:
        return content(mesh, backend.name, secrets)

    async def root(self, mesh: str, backend: Backend, path: str, store: Store, clock: Clock) -> Root:
        found = {name: await find(store, kinds.SECRET.key(name, mesh)) for name in secret_names(mesh, backend.name)}
        existing = [secret for secret in found.values() if secret is not None]
        if len(existing) == len(found):
            return Root(existing=existing)
        if any([await find(store, secret.key) is None for secret in existing]):
            raise Conflict("the pair was being removed")
        if existing:  # never half of an old pair and half of a new one
            missing = next(name for name, secret in found.items() if secret is None)
            raise InvalidResource.of(
                path,
                f'Secret "{missing}" is missing while the other half of the pair exists. '
                "Put it back from a backup, or list a backend with another name",
            )
        if isinstance(store, Rehearsal):
            return Root(create=to_secrets(mesh, backend.name, _stand_in(mesh, backend.settings, clock)))
        return Root(create=await self.renewed(mesh, backend, clock))

    def renewal_due(self, view: MeshView, backend: Backend, now: datetime) -> datetime | None:
        names = secret_names(view.name, backend.name)
        if any(name not in view.secrets for name in names):
            return None
        try:
            (root, *_) = pem.read_chain(view.secrets[names[0]].spec.data)
        except AuthorityUnusable:
            return None  # the mesh's transition tells of it as a problem
        due = rotation_time(root.not_valid_before_utc, root.not_valid_after_utc, luck=0)
        return due if root.not_valid_before_utc <= now else now  # made while the clock was ahead: valid nowhere

    async def renewed(self, mesh: str, backend: Backend, clock: Clock) -> Sequence[AnyResource]:
        return to_secrets(mesh, backend.name, await create_root(mesh, backend.settings, clock))

    def stored(self, mesh: str, secrets: Secrets) -> Mapping[str, tuple[str, ...]]:
        prefixes = secret_names(mesh, "")
        names = {name.removeprefix(p) for name in secrets for p in prefixes if name.startswith(p)}
        return {name: tuple(s for s in secret_names(mesh, name) if s in secrets) for name in names}

    def open_stored(self, mesh: str, name: str, secrets: Secrets) -> Authority:
        return open_authority(mesh, name, secrets)
