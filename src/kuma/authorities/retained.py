"""Retains the issuing authority while its content is being changed.

Certificate and key of a provided authority may be in two Secrets, which are replaced one after the other, or be removed
together with their backend: between that and the end of the staged change proxies still need certificates of the old
one, also from a control plane that was started meanwhile and has never seen it. So it is kept in a Secret of its own,
sealed as all are, from the first touch until the change is complete.
"""

from __future__ import annotations

from contextlib import suppress

from kuma.authorities.local import local_authority
from kuma.authorities.registry import STANDARD, Drivers
from kuma.base.errors import NotFound
from kuma.pki import pem
from kuma.pki.authority import Authority, AuthorityUnusable
from kuma.pki.x509 import CaPair
from kuma.resources import kinds
from kuma.resources.models.mesh import Backend
from kuma.resources.models.secret import SecretSpec
from kuma.resources.resource import Resource
from kuma.resources.view import MeshView
from kuma.store.protocol import Create, Operation, Store, Update, find

BACKEND = "kuma.io/backend"
"""Label of the Secret: the backend whose authority it was."""


def secret_name(mesh: str) -> str:
    """Returns the Secret in which the authority of a mesh is kept."""
    return f"{mesh}.ca-kept"


async def retain(mesh: str, store: Store, drivers: Drivers = STANDARD) -> tuple[Operation, ...]:
    """Returns the operations that retain the issuing authority, for the transaction that changes its content.

    The Secrets of a root that the control plane has made stay until the clean-up, and what it does not hold it cannot
    retain: of both there is nothing to do.
    """
    with suppress(NotFound):
        stored = await store.get(kinds.MESH.key(mesh))
        transition = await store.get(kinds.MESH_TRANSITION.key(mesh, mesh))
        for backend in stored.spec.backends:
            driver = drivers.of(backend)
            if driver.makes_root:
                continue
            secrets = await drivers.stored_secrets(mesh, backend, store)
            with suppress(AuthorityUnusable):
                pair = driver.pair(mesh, backend, secrets)
                if pair is None:
                    continue
                if driver.open(mesh, backend, secrets).fingerprint == transition.spec.position.authority:
                    return await _write(mesh, backend, pair, store)
    return ()


async def _write(mesh: str, backend: Backend, content: tuple[bytes, bytes], store: Store) -> tuple[Operation, ...]:
    certificates, key = content
    spec = SecretSpec(data=certificates if certificates == key else certificates + b"\n" + key)
    found = Resource(kinds.SECRET.key(secret_name(mesh), mesh), spec, labels={BACKEND: backend.name})
    before = await find(store, found.key)
    if before is None:
        return (Create(found, kinds.MESH.key(mesh)),)
    return () if before.spec == spec else (Update(before.with_spec(spec)),)


def open_retained(view: MeshView) -> Authority | None:
    """Opens the retained authority; None if there is none, or it cannot be opened."""
    secret = view.secrets.get(secret_name(view.name))
    if secret is None:
        return None
    with suppress(AuthorityUnusable):
        chain, key = pem.read_chain(secret.spec.data), pem.read_key(secret.spec.data)
        pem.check_pair(chain[0], key)
        return local_authority(secret.labels.get(BACKEND, ""), CaPair(chain[0], key), chain)
    return None
