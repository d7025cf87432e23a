"""Renews builtin roots in time, by themselves. What follows from new content in the two Secrets is a staged change."""

from __future__ import annotations

from datetime import datetime, timedelta

import structlog

from kuma.authorities.registry import STANDARD, Drivers
from kuma.base.clock import Clock
from kuma.base.errors import Conflict, Unavailable
from kuma.base.rounds import Rounds
from kuma.base.turns import Turns
from kuma.resources.models.mesh import Backend
from kuma.resources.view import MeshView
from kuma.store.protocol import Expect, Store, Update
from kuma.store.views import Views

log = structlog.get_logger(__name__)

_LONGEST_PAUSE = 3600.0
"""Seconds; a machine that slept notices within this time."""
_RETRY = 60.0


class RootRenewal:
    """Looks at every root that we have made when something changes, and when the next is due: at 4/5 of its life."""

    def __init__(self, store: Store, views: Views, clock: Clock, turns: Turns, drivers: Drivers = STANDARD) -> None:
        self._store = store
        self._views = views
        self._clock = clock
        self._turns = turns
        self._drivers = drivers
        self._rounds = Rounds(clock, "renewal of roots")
        self._changed: set[str] = set()
        self._due: dict[str, tuple[MeshView, tuple[tuple[Backend, datetime], ...]]] = {}
        """By mesh, as it was when it changed last."""
        views.on_change(self._look_at)

    def _look_at(self, meshes: frozenset[str]) -> None:
        self._changed |= meshes
        self._rounds.wake()

    def clock_jumped(self, _: timedelta) -> None:
        """Looks again: what is due now may be something else."""
        self._look_at(frozenset(self._views.meshes))

    async def run(self) -> None:
        """Renew until cancelled."""
        await self._rounds.run(self._renew_all)

    async def _renew_all(self) -> float:
        """Renew what is due; returns the seconds until the next one will be."""
        changed, self._changed = self._changed, set()
        await self._turns.collect(map(self._read, changed))
        pause, now = _LONGEST_PAUSE, self._clock.now()
        for view, dues in tuple(self._due.values()):
            for backend, due in dues:
                left = (due - now).total_seconds()
                pause = min(pause, left if left > 0 else await self._renew(view, backend))
        return pause

    def _read(self, mesh: str) -> None:
        self._due.pop(mesh, None)
        view = self._views.view(mesh)
        found = ((b, self._drivers.of(b).renewal_due(view, b, self._clock.now())) for b in view.backends)
        if dues := tuple((backend, due) for backend, due in found if due is not None):
            self._due[mesh] = view, dues

    async def _renew(self, view: MeshView, backend: Backend) -> float:
        """Replace certificate and key in one transaction, if nobody has touched them or the Mesh meanwhile.

        Returns the seconds after which to look again, unless a change has been there before.
        """
        assert view.mesh is not None
        secrets = await self._drivers.of(backend).renewed(view.name, backend, self._clock)
        writes = [Update(view.secrets[secret.name].with_spec(secret.spec)) for secret in secrets]
        try:
            await self._store.transact([Expect(view.mesh.key, view.mesh.version), *writes])
        except Unavailable as error:
            log.error("root not renewed", mesh=view.name, backend=backend.name, reason=str(error))
            return _RETRY
        except Conflict:
            return _LONGEST_PAUSE  # the change that was in the way wakes us again
        log.info("root renewed", mesh=view.name, backend=backend.name)
        return _LONGEST_PAUSE
