"""What Secrets ask of their changes: the ones that an authority is made of are neither deleted nor damaged."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime

from kuma.base.clock import Clock
from kuma.base.errors import InvalidResource, NotFound, Violation
from kuma.pki import backends, provided
from kuma.pki.announcement import announced
from kuma.pki.authority import AuthorityUnusable
from kuma.resources import kinds
from kuma.resources.mesh import Backend, MeshSpec
from kuma.resources.resource import Resource
from kuma.resources.secret import SecretSpec
from kuma.store.manager import Decision
from kuma.store.protocol import Expect, Store


class SecretRules:
    """Protects the Secrets of listed backends. The Mesh is expected to be as it was looked at."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def on_put(self, old: Resource[SecretSpec] | None, new: Resource[SecretSpec], store: Store) -> Decision:
        """Refuse content by which an authority that works could no longer be opened. Repairs are let through.

        Certificate and key of a provided authority may be in two Secrets, which are replaced one after the other: the
        first one is let through with a warning, and the authority goes on as it was until the second has come.
        """
        found = await _used_by(new, store)
        if found is None:
            return Decision()
        mesh, backend = found
        before = await _secrets(mesh, backend, store)
        if _problem(mesh, backend, before):
            return Decision()
        after = {**before, new.name: new}
        wrong = _violations(mesh, backend, after, self._clock.now())
        problem = _problem(mesh, backend, after)
        if not wrong and problem and _is_half(problem, backend):
            return Decision((Expect(mesh.key, mesh.version),), (_HALF.format(name=new.name, backend=backend.name),))
        if wrong or problem:
            reasons = "; ".join(str(violation) for violation in wrong) or problem
            raise InvalidResource.of(
                "data",
                f'would break mTLS backend "{backend.name}" of Mesh "{mesh.name}", which uses this Secret: {reasons}',
            )
        staged = old is None or old.spec != new.spec
        announcement = await announced(mesh.name, store) if staged else ()
        return Decision((Expect(mesh.key, mesh.version), *announcement), staged=staged)

    async def on_delete(self, old: Resource[SecretSpec], store: Store) -> Decision:
        """Refuse the deletion of what a listed backend is made of."""
        found = await _used_by(old, store)
        if found is not None:
            mesh, backend = found
            raise InvalidResource.of(
                "name",
                f'The secret "{old.name}" that you are trying to remove is currently in use in Mesh "{mesh.name}" in '
                f'mTLS backend "{backend.name}". Please remove the reference from the "{backend.name}" backend before '
                "removing the secret.",
            )
        return Decision()


_HALF = (
    'Secret "{name}" and the other Secret of mTLS backend "{backend}" do not belong together now: the backend goes on '
    "as it was until the other one is replaced, too. Do that before the control plane is restarted"
)


async def _used_by(secret: Resource[SecretSpec], store: Store) -> tuple[Resource[MeshSpec], Backend] | None:
    try:
        mesh = await store.get(kinds.MESH.key(secret.mesh))
    except NotFound:
        return None
    for backend in mesh.spec.mtls.backends if mesh.spec.mtls else ():
        if secret.name in backends.used_secrets(mesh.name, backend):
            return mesh, backend
    return None


async def _secrets(mesh: Resource[MeshSpec], backend: Backend, store: Store) -> backends.Secrets:
    found = {}
    for name in backends.used_secrets(mesh.name, backend):
        with suppress(NotFound):
            found[name] = await store.get(kinds.SECRET.key(name, mesh.name))
    return found


def _problem(mesh: Resource[MeshSpec], backend: Backend, secrets: backends.Secrets) -> str:
    try:
        backends.open_authority(mesh.name, backend, secrets)
    except AuthorityUnusable as error:
        return str(error)
    return ""


def _violations(
    mesh: Resource[MeshSpec], backend: Backend, secrets: backends.Secrets, now: datetime
) -> tuple[Violation, ...]:
    """The rules that a provided chain breaks."""
    if backend.type != "provided":
        return ()
    with suppress(AuthorityUnusable):
        cert, _ = provided.content(mesh.name, backend, secrets)
        return tuple(provided.violations("cert", provided.parse_chain(cert), now))
    return ()


def _is_half(problem: str, backend: Backend) -> bool:
    """Whether the only trouble is that the other Secret of the pair is still the old one."""
    return (
        backend.type == "provided"
        and len(provided.used_secrets(backend)) == 2
        and problem.startswith("not a valid TLS key pair")
    )
