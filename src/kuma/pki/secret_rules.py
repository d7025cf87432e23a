"""What Secrets ask of their changes: the ones that an authority is made of are neither deleted nor damaged."""

from __future__ import annotations

from contextlib import suppress

from kuma.base.errors import InvalidResource, NotFound
from kuma.pki import builtin
from kuma.pki.authority import AuthorityUnusable
from kuma.resources import kinds
from kuma.resources.resource import Resource
from kuma.resources.secret import SecretSpec
from kuma.store.manager import Decision
from kuma.store.protocol import Expect, Store


class SecretRules:
    """Protects the Secrets of listed backends. The Mesh is expected to be as it was looked at."""

    async def on_put(self, old: Resource[SecretSpec] | None, new: Resource[SecretSpec], store: Store) -> Decision:
        """Refuse content by which an authority that works could no longer be opened. Repairs are let through."""
        used_by = await _used_by(new, store)
        if used_by is None:
            return Decision()
        backend, expect = used_by
        before = await _pair(new.mesh, backend, store)
        if _problem(new.mesh, backend, before):
            return Decision()
        problem = _problem(new.mesh, backend, {**before, new.name: new})
        if problem:
            raise InvalidResource.of(
                "data", f'would break mTLS backend "{backend}" of Mesh "{new.mesh}", which uses this Secret: {problem}'
            )
        return Decision((expect,))

    async def on_delete(self, old: Resource[SecretSpec], store: Store) -> Decision:
        """Refuse the deletion of what a listed backend is made of."""
        used_by = await _used_by(old, store)
        if used_by is not None:
            backend, _ = used_by
            raise InvalidResource.of(
                "name",
                f'The secret "{old.name}" that you are trying to remove is currently in use in Mesh "{old.mesh}" in '
                f'mTLS backend "{backend}". Please remove the reference from the "{backend}" backend before removing '
                "the secret.",
            )
        return Decision()


async def _pair(mesh: str, backend: str, store: Store) -> builtin.Secrets:
    found = {}
    for name in builtin.secret_names(mesh, backend):
        with suppress(NotFound):
            found[name] = await store.get(kinds.SECRET.key(name, mesh))
    return found


def _problem(mesh: str, backend: str, secrets: builtin.Secrets) -> str:
    try:
        builtin.open_authority(mesh, backend, secrets)
    except AuthorityUnusable as error:
        return str(error)
    return ""


async def _used_by(secret: Resource[SecretSpec], store: Store) -> tuple[str, Expect] | None:
    try:
        mesh = await store.get(kinds.MESH.key(secret.mesh))
    except NotFound:
        return None
    for backend in mesh.spec.mtls.backends if mesh.spec.mtls else ():
        if secret.name in builtin.secret_names(mesh.name, backend.name):
            return backend.name, Expect(mesh.key, mesh.version)
    return None
