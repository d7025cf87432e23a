"""Rules for changes of a Mesh: every builtin backend gets its root, in the transaction that stores the Mesh."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

from kuma.admission.ca_examination import examine, path_of
from kuma.admission.rollout_announcement import announced, staged_part
from kuma.authorities import builtin, retained
from kuma.authorities.registry import stored_secrets, used_secrets
from kuma.base.clock import Clock
from kuma.base.errors import Conflict, InvalidResource, Violation
from kuma.resources import kinds
from kuma.resources.mesh import AUTHORITY_LABEL, AWAITED, Backend, MeshSpec
from kuma.resources.mesh_traffic_permission import EFFECT, SHADOW
from kuma.resources.resource import Resource
from kuma.resources.secret import Secrets
from kuma.store.manager import Decision
from kuma.store.protocol import AnyResource, Create, Delete, Expect, Operation, Store, find
from kuma.tokens import dataplane_tokens


class MeshRules:
    """Creates what a Mesh needs to work, all of it or nothing."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def on_put(self, old: Resource[MeshSpec] | None, new: Resource[MeshSpec], store: Store) -> Decision:
        """Creates roots for builtin backends that have none yet, and the first token signing key."""
        created: list[AnyResource] = []
        expected: list[Expect] = []
        warnings: list[str] = []
        if (
            old is None
            and await find(store, kinds.SECRET.key(dataplane_tokens.signing_key_name(new.name), new.name)) is None
        ):
            created.append(await dataplane_tokens.new_signing_key(new.name))
        for index, backend in enumerate(new.spec.backends):
            await asyncio.sleep(0)  # others have their turn between two that are tried out
            missing = await _missing(new, backend, store)
            if missing and _waits(new, backend):
                warnings.append(_WAITS.format(path=path_of(backend, index), secrets=" and ".join(missing)))
                continue
            if backend.type == "provided":
                warnings += await self._provided(new.name, backend, index, store)
                continue
            existing, made = await self._root(new.name, backend, index, store)
            expected += [Expect(secret.key, secret.version) for secret in existing]
            created += made
            before = _backend(old, backend.name)
            if before is not None and before.type == "builtin" and before.settings != backend.settings:
                warnings.append(
                    f'{path_of(backend, index)}: the root of backend "{backend.name}" exists and stays as it is; '
                    "list a backend with another name to have a new one"
                )
        if new.spec.enabled_backend and not await _has_permission(new.name, store):
            warnings.append(
                f'mutual TLS is on and mesh "{new.name}" has no permission: every call between its services '
                "is denied. Apply a TrafficPermission or MeshTrafficPermission that admits the callers you want"
            )
        staged = staged_part(old) != staged_part(new)
        operations = [
            *expected,
            *await _dropped(old, new, store),
            *(Create(resource, new.key) for resource in created),
            *(await retained.retain(new.name, store) if staged else ()),
            *(await announced(new.name, store) if staged else ()),
        ]
        return Decision(tuple(operations), tuple(warnings), staged=staged)

    async def on_delete(self, old: AnyResource, store: Store) -> Decision:
        """Adds nothing: the store itself deletes what belongs to the Mesh."""
        return Decision()

    async def _root(
        self, mesh: str, backend: Backend, index: int, store: Store
    ) -> tuple[Sequence[AnyResource], Sequence[AnyResource]]:
        """Returns the Secrets of the root: the existing ones, which must stay until the Mesh is stored, or new ones."""
        names = builtin.secret_names(mesh, backend.name)
        found = {name: await find(store, kinds.SECRET.key(name, mesh)) for name in names}
        existing = [secret for secret in found.values() if secret is not None]
        if len(existing) == len(names):
            return existing, ()
        if any([await find(store, secret.key) is None for secret in existing]):
            raise Conflict("the pair was being removed")
        if existing:  # never half of an old pair and half of a new one
            missing = next(name for name, secret in found.items() if secret is None)
            raise InvalidResource.of(
                f"mtls.backends[{index}]",
                f'Secret "{missing}" is missing while the other half of the pair exists. '
                "Put it back from a backup, or list a backend with another name",
            )
        pair = await builtin.create_root(mesh, backend.settings, self._clock)
        return (), builtin.to_secrets(mesh, backend.name, pair)

    async def _provided(self, mesh: str, backend: Backend, index: int, store: Store) -> tuple[str, ...]:
        """Warnings about a CA that the user provides; refuses one that cannot issue."""
        secrets = await stored_secrets(mesh, backend, store)
        lacking = tuple(_lacking(mesh, backend, path_of(backend, index), secrets))
        if lacking:
            raise InvalidResource(lacking)
        return await examine(mesh, backend, path_of(backend, index), secrets, self._clock.now())


async def _dropped(old: Resource[MeshSpec] | None, new: Resource[MeshSpec], store: Store) -> Sequence[Operation]:
    """Takes away the Secrets of builtin backends that are listed no longer, if there never was mutual TLS.

    If there was, proxies may still live by them: `unused_secrets` takes them away once the change is complete.
    """
    transition = kinds.MESH_TRANSITION.key(new.name, new.name)
    kept = {name for backend in new.spec.backends for name in used_secrets(new.name, backend)}
    gone = sorted(_builtin(old) - _builtin(new))
    if not gone or await find(store, transition) is not None:
        return ()
    names = (name for backend in gone for name in builtin.secret_names(new.name, backend) if name not in kept)
    secrets = (kinds.SECRET.key(name, new.name) for name in names)
    found = [secret for key in secrets if (secret := await find(store, key)) is not None]
    guards = (Expect(transition, 0), *(Expect(secret.key, secret.version) for secret in found))
    return (*guards, *(Delete(secret.key) for secret in found))


def _builtin(mesh: Resource[MeshSpec] | None) -> frozenset[str]:
    return frozenset(backend.name for backend in (mesh.spec.backends if mesh else ()) if backend.type == "builtin")


def _backend(mesh: Resource[MeshSpec] | None, name: str) -> Backend | None:
    return next((backend for backend in (mesh.spec.backends if mesh else ()) if backend.name == name), None)


def _waits(mesh: Resource[MeshSpec], backend: Backend) -> bool:
    """Whether a backend may come before its Secrets: by the label, or, as in the original, without validation."""
    if mesh.labels.get(AUTHORITY_LABEL) == AWAITED:
        return True
    return backend.type == "provided" and mesh.spec.mtls is not None and mesh.spec.mtls.skip_validation


async def _missing(mesh: Resource[MeshSpec], backend: Backend, store: Store) -> Sequence[str]:
    """The Secrets of a backend that do not exist."""
    secrets = await stored_secrets(mesh.name, backend, store)
    return [f'"{name}"' for name in used_secrets(mesh.name, backend) if name not in secrets]


def _lacking(mesh: str, backend: Backend, path: str, secrets: Secrets) -> Iterator[Violation]:
    """Each Secret that is not there, where the Mesh names it."""
    for part, source in (("cert", backend.settings.cert), ("key", backend.settings.key)):
        if source is not None and source.secret is not None and source.secret not in secrets:
            yield Violation(
                f"{path}.{part}",
                f'could not load data: Resource not found: type="Secret" name="{source.secret}" mesh="{mesh}"',
            )


_WAITS = (
    "{path}: waits for the Secrets {secrets}: nobody gets a certificate of this backend before they are there, and no "
    "other CA takes its place"
)


async def _has_permission(mesh: str, store: Store) -> bool:
    if (await store.list(kinds.TRAFFIC_PERMISSION.name, mesh, limit=1)).total:
        return True
    found = (await store.list(kinds.MESH_TRAFFIC_PERMISSION.name, mesh)).items
    return any(permission.labels.get(EFFECT) != SHADOW for permission in found)
