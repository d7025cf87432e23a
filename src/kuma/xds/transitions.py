"""Moves meshes towards what they declare, one safe step at a time, when their proxies have acknowledged the last one.

The position of a mesh is a stored resource, so any control plane goes on from it, and proxies are configured from it
(`MeshView.position`) rather than from the Mesh itself. What the next step is, `kuma.pki.transition` says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import structlog

from kuma.base import aio
from kuma.base.clock import Clock
from kuma.base.errors import AlreadyExists, Conflict, NotFound
from kuma.pki.transition import Declared, next_position, step
from kuma.resources import kinds
from kuma.resources.mesh import Backend
from kuma.resources.mesh_transition import BackendStatus, Level, MeshTransitionSpec, Position
from kuma.resources.resource import Key, Resource
from kuma.store.protocol import Create, Store, Update
from kuma.store.views import Views
from kuma.xds.meshes import Meshes, MeshState
from kuma.xds.metrics import Metrics
from kuma.xds.proxy import Proxies, Proxy

log = structlog.get_logger(__name__)

_NEVER = datetime.max.replace(tzinfo=UTC)
_NOTICE = timedelta(days=30)
"""Operators hear of the end of a CA that they provide at least this long before."""
_NAMED = 20
"""How many proxies that are waited for are named."""


@dataclass(slots=True)
class _Run:
    """What is known of one mesh between two steps."""

    since: datetime
    position: Position
    written: int = 0
    waiting: dict[Key, datetime] = field(default_factory=dict)
    """Since when each proxy has something to acknowledge."""
    decisive: tuple[object, object, object] = (None, None, None)
    """What the next step depends on besides the proxies, as it was looked at last."""


class Transitions:
    """Drives all meshes. A proxy that does not acknowledge a step within `patience` is waited for no longer."""

    def __init__(
        self,
        store: Store,
        views: Views,
        meshes: Meshes,
        proxies: Proxies,
        clock: Clock,
        metrics: Metrics,
        *,
        patience: float,
        grace: float,
    ) -> None:
        self._store = store
        self._views = views
        self._meshes = meshes
        self._proxies = proxies
        self._clock = clock
        self._metrics = metrics
        self._patience = timedelta(seconds=patience)
        self._grace = timedelta(seconds=grace)
        self._started = clock.now()
        self._runs: dict[str, _Run] = {}
        self._left: dict[Key, datetime] = {}
        self._due: set[str] = set()
        self._look_again: dict[str, datetime] = {}
        self._wake = asyncio.Event()
        views.on_change(self._changed)
        proxies.on_progress(self._progressed)

    async def run(self) -> None:
        """Drive until cancelled."""
        while True:
            await self._something_to_do()
            due, self._due, now = self._due, set(), self._clock.now()
            due |= {mesh for mesh, time in self._look_again.items() if time <= now}
            for mesh in sorted(due):
                self._look_again.pop(mesh, None)
                pause = await self._drive(mesh)
                if pause is not None:
                    self._look_again[mesh] = self._clock.now() + timedelta(seconds=pause)

    async def _something_to_do(self) -> None:
        """Return when a mesh is due, because something happened or because it is time to look again."""
        while not self._due:
            alarm = None
            if self._look_again:
                left = (min(self._look_again.values()) - self._clock.now()).total_seconds()
                if left <= 0:
                    return
                alarm = aio.spawn(self._alarm(left), name="patience with proxies")
            try:
                await self._wake.wait()
            finally:
                self._wake.clear()
                if alarm is not None:
                    await aio.stop([alarm])

    async def _alarm(self, seconds: float) -> None:
        await self._clock.sleep(seconds)
        self._wake.set()

    def _changed(self, meshes: frozenset[str]) -> None:
        for mesh in meshes:
            view, run = self._views.view(mesh), self._runs.get(mesh)
            if view.mesh is None:
                self._runs.pop(mesh, None)
                continue
            if run is None or run.position != view.position:
                now = self._clock.now()
                waiting = {p.key: now for p in self._proxies if p.key.mesh == mesh and not p.converged}
                run = self._runs[mesh] = _Run(now, view.position, waiting=waiting)
            run.written = view.transition.version if view.transition else 0
            decisive = (view.mesh, view.secrets, view.transition)
            if any(now is not before for now, before in zip(decisive, run.decisive, strict=True)):
                run.decisive = decisive
                self._look_at(mesh)

    def _progressed(self, proxy: Proxy) -> None:
        mesh, now = proxy.key.mesh, self._clock.now()
        run = self._runs.get(mesh)
        if run is None:
            return
        if proxy.key in self._proxies:
            self._left.pop(proxy.key, None)
        else:
            self._left[proxy.key] = now
        if proxy.key not in self._proxies or proxy.converged:
            run.waiting.pop(proxy.key, None)
            if not run.waiting:
                self._look_at(mesh)
        elif proxy.key not in run.waiting:
            run.waiting[proxy.key] = now
            self._look_again[mesh] = min(self._look_again.get(mesh, _NEVER), now + self._patience)
            self._wake.set()

    def _look_at(self, mesh: str) -> None:
        self._due.add(mesh)
        self._wake.set()

    async def _drive(self, mesh: str) -> float | None:
        """Take a step if one is due; returns the seconds to look again after, None if only an event can matter."""
        run, state = self._runs.get(mesh), self._meshes.state(mesh)
        view = state.config.view
        if run is None or view.mesh is None:
            return None
        self._left = {k: time for k, time in self._left.items() if k.mesh != mesh or k.name in view.dataplanes}
        declared, now = _declared(state), self._clock.now()
        wait = self._wait(mesh, run, now)
        following = next_position(view.position, declared, settled=wait is None, alone=self._is_alone(mesh, now))
        late = self._late(run, now)
        complete = following == declared.as_position() == view.position and not run.waiting
        spec = MeshTransitionSpec(
            position=following,
            goal=_goal(declared, state),
            step="complete" if complete else step(following, declared),
            since=run.since if following == view.position else now,
            waiting_for=tuple(sorted({key.name for key in run.waiting} - set(late))[:_NAMED]),
            unresponsive=late[:_NAMED],
            complete=complete,
            backends=_backends(state, now),
        )
        self._metrics.waiting.labels(mesh).set(len(run.waiting))
        for backend in spec.backends:
            if backend.not_after is not None:
                self._metrics.authority_ends.labels(mesh, backend.name).set(backend.not_after.timestamp())
        await self._write(mesh, run, view.transition, spec)
        pauses = (wait, *((soon - now).total_seconds() for soon in _ends_of_ease(state) if soon > now))
        return min((pause for pause in pauses if pause is not None), default=None)

    def _wait(self, mesh: str, run: _Run, now: datetime) -> float | None:
        """Seconds for which proxies are still waited for; None if all have acknowledged or their time is up."""
        ends = max((since + self._patience for since in run.waiting.values()), default=now)
        ends = max((ends, *self._absences(mesh)))
        return (ends - now).total_seconds() if ends > now else None

    def _absences(self, mesh: str) -> Iterator[datetime]:
        """Until when to wait for proxies that have lost their connection, to this process or to the one before.

        They go on running what they have acknowledged last, and are back within seconds; if not, they are given up.
        """
        keys = (kinds.DATAPLANE.key(name, mesh) for name in self._views.view(mesh).dataplanes)
        for key in keys:
            if key not in self._proxies:
                yield self._left.get(key, self._started) + self._grace

    def _late(self, run: _Run, now: datetime) -> tuple[str, ...]:
        """The proxies whose time is up."""
        return tuple(sorted(key.name for key, since in run.waiting.items() if since + self._patience <= now))

    def _is_alone(self, mesh: str, now: datetime) -> bool:
        """Whether no proxy of the mesh can be running anything."""
        connected = any(proxy.key.mesh == mesh for proxy in self._proxies)
        return not connected and all(end <= now for end in self._absences(mesh))

    async def _write(
        self, mesh: str, run: _Run, old: Resource[MeshTransitionSpec] | None, spec: MeshTransitionSpec
    ) -> None:
        if (old.version if old else 0) != run.written or (old is not None and old.spec == spec):
            return
        if old is None and spec.position.level is Level.PLAIN and spec.complete:
            return  # a mesh without mutual TLS has nothing to tell
        key = kinds.MESH_TRANSITION.key(mesh, mesh)
        operation = Update(replace(old, spec=spec)) if old else Create(Resource(key, spec), kinds.MESH.key(mesh))
        if old is None or old.spec.position != spec.position or spec.unresponsive != old.spec.unresponsive:
            log.info("mutual TLS", mesh=mesh, step=spec.step, unresponsive=spec.unresponsive)
        for backend in spec.backends:
            if backend.problem and (old is None or backend not in old.spec.backends):
                log.warning("authority has a problem", mesh=mesh, backend=backend.name, problem=backend.problem)
        try:
            (stored,) = await self._store.transact([operation])
        except (Conflict, AlreadyExists, NotFound):
            return  # another control plane was faster, or the mesh has gone: the view will say
        run.written = max(run.written, stored.version)  # nothing more is decided until the view has it


def _declared(state: MeshState) -> Declared:
    backend = state.config.view.enabled_backend
    if backend is None:
        return Declared()
    level = Level.ENCRYPTING if backend.mode == "PERMISSIVE" else Level.STRICT
    return Declared(level, state.trust.fingerprint(backend.name), state.trust.roots)


def _backends(state: MeshState, now: datetime) -> tuple[BackendStatus, ...]:
    return tuple(_status(backend, state, now) for backend in _listed(state))


def _status(backend: Backend, state: MeshState, now: datetime) -> BackendStatus:
    problem = state.trust.problems.get(backend.name, "")
    if backend.name not in state.trust.opened:
        return BackendStatus(name=backend.name, problem=problem)
    end = state.trust.opened[backend.name][1].not_after
    if backend.type == "provided" and now >= _end_of_ease(backend, end):
        ends = f"the CA {'ended' if end <= now else 'ends'} at {end:%Y-%m-%dT%H:%M:%SZ}; provide another one"
        problem = f"{problem}; {ends}" if problem else ends
    return BackendStatus(name=backend.name, not_after=end, problem=problem)


def _listed(state: MeshState) -> tuple[Backend, ...]:
    mesh = state.config.view.mesh
    return mesh.spec.mtls.backends if mesh and mesh.spec.mtls else ()


def _end_of_ease(backend: Backend, end: datetime) -> datetime:
    """From when on the end of a CA that nobody renews by itself is a problem."""
    return end - max(backend.leaf_lifetime, _NOTICE)


def _ends_of_ease(state: MeshState) -> Iterator[datetime]:
    for backend in _listed(state):
        if backend.type == "provided" and backend.name in state.trust.opened:
            end = state.trust.opened[backend.name][1].not_after
            yield from (_end_of_ease(backend, end), end)


def _goal(declared: Declared, state: MeshState) -> str:
    backend = state.config.view.enabled_backend
    return f"{backend.mode} with {backend.type}/{backend.name}" if backend else "mutual TLS off"
