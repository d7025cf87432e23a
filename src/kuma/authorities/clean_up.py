"""Removes the Secrets of builtin authorities that a Mesh no longer lists, once nothing live depends on them."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import structlog

from kuma.authorities import retained
from kuma.authorities.driver import Driver
from kuma.authorities.registry import STANDARD, Drivers
from kuma.base.errors import Conflict, NotFound, Unavailable
from kuma.pki.authority import AuthorityUnusable
from kuma.resources import kinds
from kuma.resources.view import MeshView
from kuma.store.protocol import Delete, Expect, Store
from kuma.store.views import Views

log = structlog.get_logger(__name__)


class CleanUp:
    """Removes authorities that are no longer needed, whenever a mesh changes. A name listed again gets a new root."""

    def __init__(self, store: Store, views: Views, drivers: Drivers = STANDARD) -> None:
        self._store = store
        self._views = views
        self._drivers = drivers
        self._changed: set[str] = set()
        self._wake = asyncio.Event()
        views.on_change(self._look_at)

    def _look_at(self, meshes: frozenset[str]) -> None:
        self._changed |= meshes
        self._wake.set()

    async def run(self) -> None:
        """Remove until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            changed, self._changed = self._changed, set()
            for mesh in sorted(changed):
                await self._clean(self._views.view(mesh))

    async def _clean(self, view: MeshView) -> None:
        names = unused_secrets(view, self._drivers)
        if not names or view.mesh is None or view.transition is None:
            return
        guards = [Expect(found.key, found.version) for found in (view.mesh, view.transition)]
        try:
            await self._store.transact([*guards, *(Delete(kinds.SECRET.key(name, view.name)) for name in names)])
        except Unavailable as error:
            log.error("secrets of removed authorities not deleted", mesh=view.name, reason=str(error))
            return
        except (Conflict, NotFound):
            return  # what has changed meanwhile makes us look again
        log.info("secrets of removed authorities deleted", mesh=view.name, secrets=names)


def unused_secrets(view: MeshView, drivers: Drivers = STANDARD) -> tuple[str, ...]:
    """Returns the Secrets of authorities made by the control plane that are neither listed nor trusted by any proxy.

    A Mesh may be newer than its transition, so being complete is not enough: the position has to be without them too.
    Of a Mesh that never had mutual TLS nothing is removed here, but by the rules of Meshes: to its Secrets a backup is
    put back before the Mesh that lists them.
    """
    if view.mesh is None or view.transition is None or not view.transition.spec.complete:
        return ()  # somebody may still run what an old authority has issued
    used = {name for b in view.backends for name in drivers.of(b).used_secrets(view.name, b)}
    found = [
        secret
        for driver in drivers
        for name, secrets in sorted(driver.stored(view.name, view.secrets).items())
        if name not in _listed(view, driver, drivers) and not _is_trusted(view, driver, name)
        for secret in secrets
        if secret not in used
    ]
    return (*found, *([retained.secret_name(view.name)] if _is_retained_needlessly(view, drivers) else ()))


def _listed(view: MeshView, driver: Driver, drivers: Drivers) -> frozenset[str]:
    return frozenset(backend.name for backend in view.backends if drivers.of(backend) is driver)


def _is_retained_needlessly(view: MeshView, drivers: Drivers) -> bool:
    """Tells whether a retained authority is no longer needed: it does not issue any more, or is listed as it was."""
    if retained.secret_name(view.name) not in view.secrets:
        return False
    authority, issuing = retained.open_retained(view), view.position.authority
    if authority is None or authority.fingerprint != issuing:
        return True
    backend = view.enabled_backend
    with suppress(AuthorityUnusable):
        return backend is None or drivers.of(backend).open(view.name, backend, view.secrets).fingerprint == issuing
    return False  # half of it has been replaced


def _is_trusted(view: MeshView, driver: Driver, name: str) -> bool:
    try:
        authority = driver.open_stored(view.name, name, view.secrets)
    except AuthorityUnusable:
        return False
    return authority.roots_pem.decode() in view.position.roots
