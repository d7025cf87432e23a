"""The kinds of authorities, as the rules and the discovery server use them."""

from __future__ import annotations

from kuma.authorities import builtin, provided
from kuma.pki.authority import Authority
from kuma.resources import kinds
from kuma.resources.mesh import Backend
from kuma.resources.secret import Secrets
from kuma.store.protocol import Store, find


def used_secrets(mesh: str, backend: Backend) -> tuple[str, ...]:
    """The Secrets that an authority is made of."""
    if backend.type == "provided":
        return provided.used_secrets(backend)
    return builtin.secret_names(mesh, backend.name)


async def stored_secrets(mesh: str, backend: Backend, store: Store) -> Secrets:
    """Reads Secrets, by their names; those that are missing are left out."""
    found = {name: await find(store, kinds.SECRET.key(name, mesh)) for name in used_secrets(mesh, backend)}
    return {name: secret for name, secret in found.items() if secret is not None}


def halves(mesh: str, backend: Backend) -> tuple[str, str]:
    """The Secrets that hold the certificate and the key; empty for one that is not in a Secret."""
    if backend.type != "provided":
        return builtin.secret_names(mesh, backend.name)
    cert, key = backend.settings.cert, backend.settings.key
    return (cert.secret if cert else None) or "", (key.secret if key else None) or ""


def content(mesh: str, backend: Backend, secrets: Secrets) -> tuple[bytes, bytes]:
    """Certificates and key as they are given.

    Raises:
        AuthorityUnusable: one cannot be loaded.
    """
    if backend.type == "provided":
        return provided.content(mesh, backend, secrets)
    return builtin.content(mesh, backend.name, secrets)


def fingerprint(mesh: str, backend: Backend, secrets: Secrets) -> tuple[bytes | None, ...]:
    """Identifies an authority by a hash of its content: with the same content it is the same authority.

    Raises:
        AuthorityUnusable: it cannot be loaded.
    """
    if backend.type == "provided":
        return provided.content(mesh, backend, secrets)
    return tuple(secrets[name].spec.data if name in secrets else None for name in used_secrets(mesh, backend))


def open_authority(mesh: str, backend: Backend, secrets: Secrets) -> Authority:
    """The authority that a backend describes.

    Raises:
        AuthorityUnusable: what it is made of is missing or broken.
    """
    if backend.type == "provided":
        return provided.open_authority(mesh, backend, secrets)
    return builtin.open_authority(mesh, backend.name, secrets)
