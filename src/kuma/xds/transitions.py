"""Moves meshes towards what they declare, one safe step at a time, when their proxies have acknowledged the last one.

The position of a mesh is a stored resource, so any control plane goes on from it, and proxies are configured from it
(`MeshView.position`) rather than from the Mesh itself. What the next step is, `kuma.pki.transition` says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from weakref import WeakSet

import structlog

from kuma.base import aio
from kuma.base.clock import Clock
from kuma.base.errors import AlreadyExists, Conflict, NotFound, Unavailable
from kuma.pki.followers import Follower, Patience, judge
from kuma.pki.transition import Declared, next_position, step
from kuma.resources import kinds
from kuma.resources.mesh_transition import Awaited, Level, MeshTransitionSpec, Position
from kuma.resources.resource import Key, Resource
from kuma.resources.view import MeshView
from kuma.store.protocol import Create, Store, Update
from kuma.store.views import Views
from kuma.xds import authorities
from kuma.xds.meshes import Meshes, MeshState
from kuma.xds.metrics import Metrics
from kuma.xds.proxy import Proxies, Proxy

log = structlog.get_logger(__name__)

_NAMED = 20
"""How many proxies that are waited for are named."""
_PROGRESS = timedelta(seconds=0.5)
"""How often the progress of a step is written while proxies acknowledge it."""
_RETRY = timedelta(seconds=1)


@dataclass(slots=True)
class _Run:
    """What is known of one mesh between two steps."""

    since: datetime
    position: Position
    followers: dict[str, Follower] = field(default_factory=dict)
    seen: Mapping[str, object] = field(default_factory=dict)
    """The Dataplanes as they were looked at last."""
    behind: set[str] = field(default_factory=set)
    """The followers that do not run the position."""
    late: int = 0
    """How many of them are no longer waited for."""
    origin: str = ""
    written: int = 0
    decisive: tuple[object, object, object] = (None, None, None)
    """What the next step depends on besides the proxies, as it was looked at last."""

    def follower(self, name: str, now: datetime) -> Follower:
        return self.followers.setdefault(name, Follower(left=now))


class Transitions:
    """Drives all meshes. Who is waited for, and for how long, `kuma.pki.followers` says."""

    def __init__(
        self,
        store: Store,
        views: Views,
        meshes: Meshes,
        proxies: Proxies,
        clock: Clock,
        metrics: Metrics,
        patience: Patience,
    ) -> None:
        self._store = store
        self._views = views
        self._meshes = meshes
        self._proxies = proxies
        self._clock = clock
        self._metrics = metrics
        self._patience = patience
        self._runs: dict[str, _Run] = {}
        self._have_run: set[Key] = set()
        self._streams: WeakSet[Proxy] = WeakSet()
        """The streams that have been noted."""
        self._due: set[str] = set()
        self._look_again: dict[str, datetime] = {}
        self._wake = asyncio.Event()
        views.on_change(self._changed)
        proxies.on_progress(self._progressed)

    async def run(self) -> None:
        """Drive until cancelled."""
        await self._remember()
        while True:
            await self._something_to_do()
            due, self._due, now = self._due, set(), self._clock.now()
            due |= {mesh for mesh, time in self._look_again.items() if time <= now}
            for mesh in sorted(due):
                self._look_again.pop(mesh, None)
                try:
                    again = await self._drive(mesh)
                except Unavailable as error:
                    log.error("mutual TLS not taken further", mesh=mesh, reason=str(error))
                    again = self._clock.now() + _RETRY
                if again is not None:
                    self._look_again_at(mesh, again)

    async def _remember(self) -> None:
        """Whose proxies have run something before this process began: they may be running it still."""
        page = await self._store.list(kinds.DATAPLANE_INSIGHT.name)
        self._have_run = {kinds.DATAPLANE.key(insight.name, insight.mesh) for insight in page.items}
        await self._views.until(lambda: True)
        for run in self._runs.values():
            run.seen = {}
        self._changed(self._views.meshes)

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

    def _changed(self, meshes: Iterable[str]) -> None:
        for mesh in meshes:
            view = self._views.view(mesh)
            if view.mesh is None:
                self._forget(mesh)
                continue
            run = self._runs.get(mesh) or self._begin(view)
            if run.position != view.position:
                run.position, run.since = view.position, self._clock.now()
                for name in run.followers:
                    self._count(run, name)
            if self._take_stock(view, run):
                self._look_at(mesh)
            run.written = view.transition.version if view.transition else 0
            decisive = (view.mesh, view.secrets, view.transition)
            if any(now is not before for now, before in zip(decisive, run.decisive, strict=True)):
                run.decisive = decisive
                self._look_at(mesh)

    def _begin(self, view: MeshView) -> _Run:
        """Go on from what is stored: where the mesh stands, since when, and who was given up."""
        now, stored = self._clock.now(), view.transition.spec if view.transition else MeshTransitionSpec()
        run = self._runs[view.name] = _Run(stored.since or now, view.position, origin=stored.origin)
        for awaited in stored.unresponsive:
            run.followers[awaited.name] = Follower(left=awaited.since or now, since=awaited.since or now)
            run.behind.add(awaited.name)
        return run

    def _take_stock(self, view: MeshView, run: _Run) -> bool:
        """Followers are the Dataplanes whose proxies run something: not the ones that nobody has started yet.

        Returns whether somebody counts who did not before, or the other way round.
        """
        if view.dataplanes is run.seen:
            return False
        before, now = len(run.followers), self._clock.now()
        complete = view.transition is not None and view.transition.spec.complete
        gone = [name for name in run.followers if name not in view.dataplanes]
        for name in gone:
            del run.followers[name]
            run.behind.discard(name)
            self._have_run.discard(kinds.DATAPLANE.key(name, view.name))
        for name in view.dataplanes.keys() - run.seen.keys() - run.followers.keys():
            key = kinds.DATAPLANE.key(name, view.name)
            if key in self._have_run:
                # What was complete is run by all; of anything else nothing is known until they are back.
                run.followers[name] = Follower(left=now, runs=run.position if complete else None)
                self._count(run, name)
            if (proxy := self._proxies.get(key)) is not None:
                self._note(run, proxy)
                self._count(run, name)
        run.seen = view.dataplanes
        return bool(gone) or len(run.followers) != before

    def _count(self, run: _Run, name: str) -> None:
        """Note whether a follower is behind, and since when."""
        follower = run.followers[name]
        if follower.runs is run.position or follower.runs == run.position:
            run.behind.discard(name)
        else:
            run.behind.add(name)
            follower.has_something_to_do(self._clock.now())

    def _forget(self, mesh: str) -> None:
        if self._runs.pop(mesh, None) is not None:
            self._metrics.forget(mesh)

    def _progressed(self, proxy: Proxy) -> None:
        mesh, run = proxy.key.mesh, self._runs.get(proxy.key.mesh)
        if run is None or proxy.key.name not in self._meshes.state(mesh).config.view.dataplanes:
            return
        was_behind = proxy.key.name in run.behind
        follower = self._note(run, proxy)
        self._count(run, proxy.key.name)
        is_behind = proxy.key.name in run.behind
        if is_behind and not was_behind:
            self._look_at(mesh)  # whoever comes back with less than what is said to be complete
        elif was_behind and len(run.behind) <= run.late:
            self._look_at(mesh)
        elif was_behind or follower.since is not None:
            now = self._clock.now()
            soon = now + _PROGRESS if was_behind else follower.given_up_at(self._patience) or now
            self._look_again_at(mesh, soon)

    def _note(self, run: _Run, proxy: Proxy) -> Follower:
        """Take in how a proxy is."""
        now, key = self._clock.now(), proxy.key
        follower = run.follower(key.name, now)
        speaking = self._proxies.get(key)
        if speaking is not proxy:
            if speaking is None:
                follower.gone(now)
            return follower
        if not follower.connected or proxy not in self._streams:
            self._streams.add(proxy)
            self._have_run.add(key)
            follower.joined(now)
        follower.unserved = proxy.is_unserved
        if proxy.converged:
            position = self._meshes.state(key.mesh).config.view.position
            follower.ran(run.position if position == run.position else position)  # the same object compares quickly
        else:
            follower.has_something_to_do(now)
        return follower

    def _look_at(self, mesh: str) -> None:
        self._due.add(mesh)
        self._wake.set()

    def _look_again_at(self, mesh: str, time: datetime) -> None:
        earliest = self._look_again.get(mesh)
        if earliest is None or time < earliest:
            self._look_again[mesh] = time
            self._wake.set()

    async def _drive(self, mesh: str) -> datetime | None:
        """Take a step if one is due; returns when to look again, None if only an event can matter."""
        run, state = self._runs.get(mesh), self._meshes.state(mesh)
        view, now = state.config.view, self._clock.now()
        if run is None or view.mesh is None:
            return None
        declared, verdict = _declared(state), judge(run.followers, run.position, now, self._patience)
        run.late = len(verdict.late)
        following = next_position(view.position, declared, settled=verdict.settled, alone=verdict.alone)
        complete = following == declared.as_position() == view.position and verdict.everybody
        goal = _goal(declared, state)
        if complete:
            run.origin = goal
        spec = MeshTransitionSpec(
            position=following,
            origin=run.origin or _PLAINTEXT,
            goal=goal,
            step="complete" if complete else step(following, declared),
            since=run.since if following == view.position else now,
            followers=len(run.followers),
            acknowledged=len(run.followers) - len(run.behind) if following == view.position else 0,
            waiting_for=_awaited(run, verdict.waiting[:_NAMED]),
            unresponsive=_awaited(run, verdict.late),
            complete=complete,
            problem=self._problem(mesh, run),
            backends=authorities.statuses(state, now),
        )
        self._metrics.waiting.labels(mesh).set(len(verdict.waiting) + len(verdict.late))
        self._metrics.authorities(mesh, spec.backends)
        await self._write(mesh, run, view.transition, spec)
        alarms = (verdict.look_again, *(soon for soon in authorities.alarms(state) if soon > now))
        return min((alarm for alarm in alarms if alarm is not None), default=None)

    def _problem(self, mesh: str, run: _Run) -> str:
        """Why the control plane itself holds a step up."""
        unserved = sorted(name for name, follower in run.followers.items() if follower.unserved)
        if not unserved:
            return ""
        proxy = self._proxies.get(kinds.DATAPLANE.key(unserved[0], mesh))
        reason = proxy.keeper.last_error if proxy else ""
        return f"{len(unserved)} proxies get no certificate, such as {unserved[0]}: {reason}"

    async def _write(
        self, mesh: str, run: _Run, old: Resource[MeshTransitionSpec] | None, spec: MeshTransitionSpec
    ) -> None:
        if (old.version if old else 0) != run.written or (old is not None and old.spec == spec):
            return
        if old is None and spec.position.level is Level.PLAIN and spec.complete:
            return  # a mesh without mutual TLS has nothing to tell
        key = kinds.MESH_TRANSITION.key(mesh, mesh)
        operation = Update(replace(old, spec=spec)) if old else Create(Resource(key, spec), kinds.MESH.key(mesh))
        self._log(mesh, old.spec if old else MeshTransitionSpec(), spec)
        try:
            (stored,) = await self._store.transact([operation])
        except (Conflict, AlreadyExists, NotFound):
            return  # another control plane was faster, or the mesh has gone: the view will say
        run.written = max(run.written, stored.version)  # nothing more is decided until the view has it

    @staticmethod
    def _log(mesh: str, old: MeshTransitionSpec, new: MeshTransitionSpec) -> None:
        late = [awaited.name for awaited in new.unresponsive]
        if (old.position, old.complete) != (new.position, new.complete) or late != [a.name for a in old.unresponsive]:
            log.info("mutual TLS", mesh=mesh, step=new.step, unresponsive=late[:_NAMED])
        if new.problem and new.problem != old.problem:
            log.error("mutual TLS is held up", mesh=mesh, problem=new.problem)
        for backend in new.backends:
            if backend.problem and backend not in old.backends:
                log.warning("authority has a problem", mesh=mesh, backend=backend.name, problem=backend.problem)


def _awaited(run: _Run, names: Iterable[str]) -> tuple[Awaited, ...]:
    found = ((name, run.followers[name]) for name in names)
    return tuple(Awaited(name=name, since=f.since, absent=not f.connected) for name, f in found)


_PLAINTEXT = "mutual TLS off"


def _declared(state: MeshState) -> Declared:
    backend = state.config.view.enabled_backend
    if backend is None:
        return Declared()
    level = Level.ENCRYPTING if backend.mode == "PERMISSIVE" else Level.STRICT
    return Declared(level, state.trust.fingerprint(backend.name), state.trust.roots)


def _goal(declared: Declared, state: MeshState) -> str:
    backend = state.config.view.enabled_backend
    return f"{backend.mode} with {backend.type}/{backend.name}" if backend else _PLAINTEXT
