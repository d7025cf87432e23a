"""Rules for changes of a Mesh: every builtin backend gets its root, in the transaction that stores the Mesh."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence

from kuma.admission.ca_examination import examine, path_of
from kuma.admission.rollout_announcement import announced, staged_part
from kuma.authorities import retained
from kuma.authorities.driver import Driver
from kuma.authorities.registry import STANDARD, Drivers
from kuma.base.clock import Clock
from kuma.base.errors import InvalidResource, Violation
from kuma.policy import weakening
from kuma.resources import kinds
from kuma.resources.models.mesh import (
    ALLOWED,
    AUTHORITY_LABEL,
    AWAITED,
    REFUSED,
    WEAKENING_LABEL,
    Backend,
    MeshSpec,
    weakening_is_refused,
)
from kuma.resources.models.mesh_traffic_permission import EFFECT, SHADOW
from kuma.resources.models.secret import Secrets, SecretSpec
from kuma.resources.resource import Resource
from kuma.store.manager import Decision
from kuma.store.protocol import AnyResource, Create, Delete, Expect, Operation, Store, find
from kuma.store.rehearsal import Rehearsal
from kuma.tokens import dataplane_tokens


class MeshRules:
    """Creates what a Mesh needs to work, all of it or nothing."""

    def __init__(self, clock: Clock, drivers: Drivers = STANDARD, *, guarded: bool = False) -> None:
        self._clock = clock
        self._drivers = drivers
        self._guarded = guarded
        """Whether meshes that do not say so refuse what weakens them."""

    async def on_put(self, old: Resource[MeshSpec] | None, new: Resource[MeshSpec], store: Store) -> Decision:
        """Creates roots for builtin backends that have none yet, and the first token signing key."""
        wrong = tuple(_labels(new.labels))
        if wrong:
            raise InvalidResource(wrong)
        created: list[AnyResource] = []
        expected: list[Expect] = []
        warnings: list[str] = []
        signing_key = kinds.SECRET.key(dataplane_tokens.signing_key_name(new.name), new.name)
        if old is None and await find(store, signing_key) is None:
            created.append(await _first_signing_key(new.name, store))
        for index, backend in enumerate(new.spec.backends):
            await asyncio.sleep(0)  # others have their turn between two that are tried out
            missing = await self._missing(new, backend, store)
            if missing and self._waits(new, backend):
                warnings.append(_WAITS.format(path=path_of(backend, index), secrets=" and ".join(missing)))
                continue
            root = await self._drivers.of(backend).root(
                new.name, backend, f"mtls.backends[{index}]", store, self._clock
            )
            expected += [Expect(secret.key, secret.version) for secret in root.existing]
            created += root.create
            warnings += await self._warnings(old, new.name, backend, path_of(backend, index), store)
        if new.spec.enabled_backend and not await _has_permission(new.name, store):
            warnings.append(
                f'mutual TLS is on and mesh "{new.name}" has no permission: every call between its services '
                "is denied. Apply a TrafficPermission or MeshTrafficPermission that admits the callers you want"
            )
        staged = staged_part(old) != staged_part(new)
        operations = [
            *expected,
            *await self._dropped(old, new, store),
            *(Create(resource, new.key) for resource in created),
            *(await retained.retain(new.name, store, self._drivers) if staged else ()),
            *(await announced(new.name, store) if staged else ()),
        ]
        return Decision(
            tuple(operations),
            tuple(warnings),
            staged=staged,
            weakens=tuple(weakening.of_mesh(old, new, guarded=self._guarded, foreign=self._foreign(new.spec))),
            guarded=old is not None and weakening_is_refused(old.labels, self._guarded),
        )

    async def on_delete(self, old: AnyResource, store: Store) -> Decision:
        """Tells a guarded mesh's end; the store itself deletes what belongs to the Mesh."""
        if old.spec.enabled_backend is None or not weakening_is_refused(old.labels, self._guarded):
            return Decision()
        ends = Violation("name", "its mutual TLS, its permissions and its guard are deleted with it")
        return Decision(weakens=(ends,), guarded=True)

    async def _warnings(
        self, old: Resource[MeshSpec] | None, mesh: str, backend: Backend, path: str, store: Store
    ) -> tuple[str, ...]:
        """Returns warnings about a listed authority; refuses one of a user's that cannot issue."""
        driver = self._drivers.of(backend)
        if not driver.makes_root:
            secrets = await self._drivers.stored_secrets(mesh, backend, store)
            lacking = tuple(_lacking(mesh, backend, driver, path, secrets))
            if lacking:
                raise InvalidResource(lacking)
            return await examine(mesh, backend, path, secrets, self._clock.now(), self._drivers)
        before = next((b for b in (old.spec.backends if old else ()) if b.name == backend.name), None)
        if before is None or self._drivers.of(before) is not driver or before.settings == backend.settings:
            return ()
        return (
            f'{path}: the root of backend "{backend.name}" exists and stays as it is; '
            "list a backend with another name to have a new one",
        )

    async def _dropped(
        self, old: Resource[MeshSpec] | None, new: Resource[MeshSpec], store: Store
    ) -> Sequence[Operation]:
        """Deletes the Secrets of roots whose backends are listed no longer, if there never was mutual TLS.

        If there was, proxies may still depend on them: the clean-up deletes them once the change is complete.
        """
        transition = kinds.MESH_TRANSITION.key(new.name, new.name)
        used = {name for b in new.spec.backends for name in self._drivers.of(b).used_secrets(new.name, b)}
        before = sorted(old.spec.backends if old else (), key=lambda backend: backend.name)
        roots = ((backend, driver) for backend in before if (driver := self._drivers.of(backend)).makes_root)
        gone = [n for backend, driver in roots for n in driver.used_secrets(new.name, backend) if n not in used]
        if not gone or await find(store, transition) is not None:
            return ()
        found = [s for name in gone if (s := await find(store, kinds.SECRET.key(name, new.name))) is not None]
        guards = (Expect(transition, 0), *(Expect(secret.key, secret.version) for secret in found))
        return (*guards, *(Delete(secret.key) for secret in found))

    def _foreign(self, mesh: MeshSpec) -> frozenset[str]:
        """Names the backends whose roots are not made here."""
        return frozenset(backend.name for backend in mesh.backends if not self._drivers.of(backend).makes_root)

    def _waits(self, mesh: Resource[MeshSpec], backend: Backend) -> bool:
        """Tells whether a backend may come before its Secrets: by the label, or without validation as the original."""
        if mesh.labels.get(AUTHORITY_LABEL) == AWAITED:
            return True
        skips = mesh.spec.mtls is not None and mesh.spec.mtls.skip_validation
        return skips and not self._drivers.of(backend).makes_root

    async def _missing(self, mesh: Resource[MeshSpec], backend: Backend, store: Store) -> Sequence[str]:
        """Returns the Secrets of a backend that do not exist."""
        secrets = await self._drivers.stored_secrets(mesh.name, backend, store)
        used = self._drivers.of(backend).used_secrets(mesh.name, backend)
        return [f'"{name}"' for name in used if name not in secrets]


def _labels(labels: Mapping[str, str]) -> Iterator[Violation]:
    """Returns what is wrong with the labels by which a Mesh says how it is to be treated."""
    for label, values in ((AUTHORITY_LABEL, (AWAITED,)), (WEAKENING_LABEL, (REFUSED, ALLOWED))):
        if labels.get(label, values[0]) not in values:
            yield Violation(f'labels["{label}"]', f"has to be {' or '.join(values)}")


def _lacking(mesh: str, backend: Backend, driver: Driver, path: str, secrets: Secrets) -> Iterator[Violation]:
    """Returns a violation for each Secret that is not there, where the Mesh names it."""
    for part, name in zip(("cert", "key"), driver.halves(mesh, backend), strict=True):
        if name and name not in secrets:
            yield Violation(
                f"{path}.{part}",
                f'could not load data: Resource not found: type="Secret" name="{name}" mesh="{mesh}"',
            )


_WAITS = (
    "{path}: waits for the Secrets {secrets}: nobody gets a certificate of this backend before they are there, and no "
    "other CA takes its place"
)


async def _first_signing_key(mesh: str, store: Store) -> AnyResource:
    """Makes the key that a mesh begins with; an empty one where nothing is stored, for that takes a while."""
    if isinstance(store, Rehearsal):
        return Resource(kinds.SECRET.key(dataplane_tokens.signing_key_name(mesh), mesh), SecretSpec())
    return await dataplane_tokens.new_signing_key(mesh)


async def _has_permission(mesh: str, store: Store) -> bool:
    if (await store.list(kinds.TRAFFIC_PERMISSION.name, mesh, limit=1)).total:
        return True
    found = (await store.list(kinds.MESH_TRAFFIC_PERMISSION.name, mesh)).items
    return any(permission.labels.get(EFFECT) != SHADOW for permission in found)
