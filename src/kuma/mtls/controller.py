"""Moves meshes towards what they declare, one safe step at a time, when their proxies have acknowledged the last one.

The position of a mesh is a stored resource, so any control plane goes on from it, and proxies are configured from it
(`MeshView.position`) rather than from the Mesh itself. What the next step is, `kuma.mtls.steps.next_step` says.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog

from kuma.authorities.registry import STANDARD, Drivers
from kuma.base.clock import Clock, ClockWatch
from kuma.base.errors import AlreadyExists, Conflict, NotFound, Unavailable
from kuma.base.rounds import Rounds
from kuma.coordination.coordination import Coordination
from kuma.mtls import authority_status
from kuma.mtls.observer import Observer, Rollout
from kuma.mtls.steps.next_step import Declared, next_position, step
from kuma.mtls.steps.progress import Patience, judge
from kuma.resources import kinds
from kuma.resources.models.coordination import RolloutProgressSpec
from kuma.resources.models.dataplane_insight import DataplaneInsightSpec
from kuma.resources.models.last_contact import LastContact
from kuma.resources.models.mesh_transition import Level, MeshTransitionSpec, Position
from kuma.resources.resource import Resource
from kuma.resources.view import MeshView
from kuma.store.protocol import Create, Store, Update
from kuma.store.views import Views
from kuma.xds.proxies.connected_proxies import Proxies
from kuma.xds.proxies.meshes import Meshes, MeshState
from kuma.xds.proxies.metrics import Metrics
from kuma.xds.proxies.proxy import Proxy

log = structlog.get_logger(__name__)

_MOST_OUT_OF_CONTACT = 100
_NAMED = 20
"""How many proxies that are waited for are named."""
_PROGRESS = timedelta(seconds=0.5)
"""How often the progress of a step is written while proxies acknowledge it."""
_RETRY = timedelta(seconds=1)
_PLAINTEXT = "mutual TLS off"


@dataclass(slots=True)
class _Run:
    """State of one mesh between two steps."""

    since: datetime
    rollout: Rollout
    late: int = 0
    """How many of those that are behind are no longer waited for."""
    origin: str = ""
    written: int = 0
    """The version of the stored transition that was read or written last."""
    decisive: tuple[object, object, object] = (None, None, None)
    """What the next step depends on besides the proxies, as it was looked at last."""


class RolloutController:
    """Drives all meshes. Which proxies run what, `kuma.mtls.observer` knows."""

    def __init__(
        self,
        store: Store,
        views: Views,
        meshes: Meshes,
        proxies: Proxies,
        clock: Clock,
        *,
        metrics: Metrics,
        patience: Patience,
        watch: ClockWatch,
        drain: timedelta,
        coordination: Coordination,
        drivers: Drivers = STANDARD,
    ) -> None:
        self._store = store
        self._views = views
        self._meshes = meshes
        self._proxies = proxies
        self._clock = clock
        self._metrics = metrics
        self._patience = patience
        self._drivers = drivers
        self._drain = drain
        self._coordination = coordination
        self._observer = Observer(meshes, proxies, clock, coordination)
        self._runs: dict[str, _Run] = {}
        self._due: set[str] = set()
        self._look_again: dict[str, datetime] = {}
        self._rounds = Rounds(clock, "patience with proxies")
        self._watch = watch
        watch.on_jump(self._clock_jumped)
        meshes.on_change(self._changed)
        proxies.on_progress(self._progressed)
        coordination.on_progress(self._heard)
        coordination.on_change(self._lead_changed)

    async def run(self) -> None:
        """Drive until cancelled."""
        await self._remember()
        await self._rounds.run(self._drive_due)

    async def _remember(self) -> None:
        """Restores which proxies have run something before this process began, because they may run it still."""
        page = await self._store.list(kinds.DATAPLANE_INSIGHT.name)
        now = self._clock.now()
        self._observer.remember({kinds.DATAPLANE.key(i.name, i.mesh): _last_contact(i.spec, now) for i in page.items})
        await self._views.until(lambda: True)
        for run in self._runs.values():
            run.rollout.seen = {}
        self._changed(self._views.meshes)

    async def _drive_due(self) -> float | None:
        """Drive the meshes of which something was heard, or whose time has come.

        Returns the seconds until it is time to look again, None if only an event can matter.
        """
        self._watch.look()  # patience is measured by the time of day
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
        if not self._look_again:
            return None
        return (min(self._look_again.values()) - self._clock.now()).total_seconds()

    def _clock_jumped(self, by: timedelta) -> None:
        for run in self._runs.values():
            run.since += by
            run.rollout.clock_jumped(by)
        self._due.update(self._runs)
        self._rounds.wake()

    def _look_at(self, mesh: str) -> None:
        self._due.add(mesh)
        self._rounds.wake()

    def _look_again_at(self, mesh: str, time: datetime) -> None:
        earliest = self._look_again.get(mesh)
        if earliest is None or time < earliest:
            self._look_again[mesh] = time
            self._rounds.wake()

    def _changed(self, meshes: Iterable[str]) -> None:
        for mesh in meshes:
            view = self._views.view(mesh)
            if view.mesh is None:
                self._forget(mesh)
                continue
            run = self._runs.get(mesh) or self._begin(view)
            if run.rollout.position != view.position:
                run.since = self._clock.now()
                run.rollout.go_to(view.position, run.since)
            if self._observer.take_stock(view, run.rollout):
                self._look_at(mesh)
            run.written = view.transition.version if view.transition else 0
            decisive = (view.mesh, view.secrets, view.transition)
            if any(now is not before for now, before in zip(decisive, run.decisive, strict=True)):
                run.decisive = decisive
                self._look_at(mesh)

    def _begin(self, view: MeshView) -> _Run:
        """Go on from what is stored: where the mesh stands, since when, and who was given up."""
        now, stored = self._clock.now(), view.transition.spec if view.transition else MeshTransitionSpec()
        run = self._runs[view.name] = _Run(stored.since or now, Rollout(view.position), origin=stored.origin)
        run.rollout.give_up(stored.unresponsive, now)
        return run

    def _forget(self, mesh: str) -> None:
        if self._runs.pop(mesh, None) is not None:
            self._metrics.forget(mesh)

    def _progressed(self, proxy: Proxy) -> None:
        mesh, name, run = proxy.key.mesh, proxy.key.name, self._runs.get(proxy.key.mesh)
        if run is None or name not in self._meshes.state(mesh).config.view.dataplanes:
            return
        behind = run.rollout.behind
        was_behind = name in behind
        seen = self._observer.note(run.rollout, proxy)
        is_behind = name in behind
        if is_behind and not was_behind and len(behind) == 1:
            self._look_at(mesh)  # it comes back with less than what is said to be complete
        elif is_behind and not was_behind:
            self._look_again_at(mesh, self._clock.now() + _PROGRESS)  # one of many that arrive
        elif was_behind and len(behind) <= run.late:
            self._look_at(mesh)
        elif not seen.connected and seen.last_contact is not None:
            self._look_again_at(mesh, seen.left + self._patience.absence)
        elif was_behind or seen.since is not None:
            now = self._clock.now()
            soon = now + _PROGRESS if was_behind else seen.given_up_at(self._patience) or now
            self._look_again_at(mesh, soon)

    def _heard(self, instance: str, mesh: str) -> None:
        run = self._runs.get(mesh)
        if run is not None:
            self._observer.hear(self._meshes.state(mesh).config.view, run.rollout, instance)
            self._look_at(mesh)

    def _lead_changed(self) -> None:
        for mesh in self._runs:
            self._look_at(mesh)

    def report(self, mesh: str, instance: str) -> RolloutProgressSpec | None:
        """Returns what there is to say of the proxies that are connected here, if there are some or others may ask."""
        run = self._runs.get(mesh)
        if run is None:
            return None
        found = self._observer.report(mesh, run.rollout, instance)
        asked = self._meshes.state(mesh).config.view.transition is not None
        return found if asked or found.running or found.behind else None

    async def _drive(self, mesh: str) -> datetime | None:
        """Take a step if one is due; returns when to look again, None if only an event can matter."""
        run, state = self._runs.get(mesh), self._meshes.state(mesh)
        view, now = state.config.view, self._clock.now()
        if run is None or view.mesh is None:
            return None
        rollout, declared = run.rollout, _declared(state)
        unsettled = rollout.unsettled(now)
        quiet = len(rollout.proxies) - len(unsettled)
        progress = judge(unsettled, rollout.position, now, self._patience, quiet=quiet)
        run.late = len(progress.late)
        heard = not self._observer.unheard(mesh, rollout.position)
        position = next_position(
            view.position, declared, settled=progress.settled and heard, alone=progress.alone and heard
        )
        stays = position == view.position
        reached = stays and declared.is_reached_at(position) and not declared.waits
        complete = reached and progress.everybody and heard
        goal = _goal(state)
        if complete:
            run.origin = goal
        spec = MeshTransitionSpec(
            position=position,
            origin=run.origin or _PLAINTEXT,
            goal=goal,
            step="complete" if complete else step(position, declared),
            since=run.since if stays else now,
            followers=len(rollout.proxies),
            acknowledged=len(rollout.proxies) - len(rollout.behind) if stays else 0,
            waiting_for=rollout.awaited(progress.waiting[:_NAMED]),
            unresponsive=rollout.awaited(progress.late),
            out_of_contact=rollout.out_of_contact(progress.out_of_contact[:_MOST_OUT_OF_CONTACT]),
            complete=complete,
            open_until=self._open_until(view, position, now),
            problem=self._problem(mesh, rollout),
            backends=authority_status.statuses(state, now, self._drivers),
        )
        self._metrics.waiting.labels(mesh).set(len(progress.waiting) + len(progress.late))
        self._metrics.out_of_contact.labels(mesh).set(len(progress.out_of_contact))
        self._metrics.authorities(mesh, spec.backends)
        await self._write(mesh, run, view.transition, spec)
        expected = (soon for soon in authority_status.alarms(state, self._drivers) if soon > now)
        alarms = (progress.look_again, spec.open_until, *expected)
        return min((alarm for alarm in alarms if alarm is not None), default=None)

    def _open_until(self, view: MeshView, position: Position, now: datetime) -> datetime | None:
        """Returns when the last connections under a retired authority end; None if there can be none any more."""
        if set(view.position.roots) - set(position.roots) and position.level is not Level.PLAIN:
            return now + self._drain
        stored = view.transition.spec.open_until if view.transition else None
        return stored if stored is not None and stored > now else None

    def _problem(self, mesh: str, rollout: Rollout) -> str:
        """Returns why the control plane itself holds a step up; None if it does not."""
        unserved = sorted(name for name in rollout.restless if rollout.proxies[name].unserved)
        if not unserved:
            return ""
        proxy = self._proxies.get(kinds.DATAPLANE.key(unserved[0], mesh))
        reason = proxy.keeper.last_error if proxy else ""
        return f"{len(unserved)} proxies get no certificate, such as {unserved[0]}: {reason}"

    async def _write(
        self, mesh: str, run: _Run, old: Resource[MeshTransitionSpec] | None, spec: MeshTransitionSpec
    ) -> None:
        if not self._coordination.leads:
            return
        if (old.version if old else 0) != run.written or (old is not None and old.spec == spec):
            return
        if old is None and spec.position.level is Level.PLAIN and spec.complete:
            return  # a mesh without mutual TLS has nothing to tell
        key = kinds.MESH_TRANSITION.key(mesh, mesh)
        operation = Update(replace(old, spec=spec)) if old else Create(Resource(key, spec), kinds.MESH.key(mesh))
        before = old.spec if old else MeshTransitionSpec()
        _log(mesh, before, spec)
        self._log_given_up(mesh, run.rollout, before, spec)
        try:
            (stored,) = await self._store.transact([*self._coordination.guard(), operation])
        except (Conflict, AlreadyExists, NotFound):
            return  # another control plane was faster, or the mesh has gone: the view will say
        run.written = max(run.written, stored.version)  # nothing more is decided until the view has it

    def _log_given_up(self, mesh: str, rollout: Rollout, old: MeshTransitionSpec, new: MeshTransitionSpec) -> None:
        known = {awaited.name for awaited in old.unresponsive}
        for awaited in [awaited for awaited in new.unresponsive if awaited.name not in known][:_NAMED]:
            proxy = self._proxies.get(kinds.DATAPLANE.key(awaited.name, mesh))
            last = rollout.proxies[awaited.name].last_contact
            unanswered = proxy.session.unanswered if proxy else last.unanswered if last else ()
            log.warning(
                "proxy given up: the change goes on without it, and it may go on as it was",
                mesh=mesh,
                dataplane=awaited.name,
                since=str(awaited.since),
                connected=not awaited.absent,
                unanswered=unanswered,
            )


def _last_contact(insight: DataplaneInsightSpec, now: datetime) -> LastContact | None:
    """Returns what is known of a proxy's last contact if this process has not seen it end."""
    end = insight.mtls.certificate_expiration_time if insight.mtls else None
    if insight.last_contact is not None or not insight.online or end is None:
        return insight.last_contact
    return LastContact(since=now, may_serve_until=end)


def _declared(state: MeshState) -> Declared:
    backend = state.config.view.enabled_backend
    if backend is None:
        return Declared()
    level = Level.ENCRYPTING if backend.mode == "PERMISSIVE" else Level.STRICT
    return Declared(level, state.trust.fingerprint(backend.name), state.trust.roots)


def _goal(state: MeshState) -> str:
    backend = state.config.view.enabled_backend
    return f"{backend.mode} with {backend.type}/{backend.name}" if backend else _PLAINTEXT


def _log(mesh: str, old: MeshTransitionSpec, new: MeshTransitionSpec) -> None:
    late = [awaited.name for awaited in new.unresponsive]
    if (old.position, old.complete) != (new.position, new.complete) or late != [a.name for a in old.unresponsive]:
        log.info("mutual TLS", mesh=mesh, step=new.step, unresponsive=late[:_NAMED])
    if new.problem and new.problem != old.problem:
        log.error("mutual TLS is held up", mesh=mesh, problem=new.problem)
    known = {(proxy.name, proxy.since) for proxy in old.out_of_contact}
    for proxy in [proxy for proxy in new.out_of_contact if (proxy.name, proxy.since) not in known][:_NAMED]:
        log.warning(
            "proxy out of contact: it may go on with what it acknowledged last",
            mesh=mesh,
            dataplane=proxy.name,
            since=proxy.since.isoformat(),
            until=proxy.may_serve_until.isoformat(),
            admits=proxy.admits,
            unanswered=proxy.unanswered,
        )
    for backend in new.backends:
        if backend.problem and backend not in old.backends:
            log.warning("authority has a problem", mesh=mesh, backend=backend.name, problem=backend.problem)
