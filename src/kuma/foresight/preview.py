"""Previews a change: to whom it would do what, and how it would go. Pure.

view + changes -> view after it; both, with the callers that were seen and what is known of proxies -> Preview
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from kuma.base.errors import InvalidResource
from kuma.base.values import durations
from kuma.base.values.quantities import counted
from kuma.foresight import course, traffic
from kuma.foresight.consequences import AffectedCaller, Consequences
from kuma.foresight.course import DEFAULT_PACE, Ending, Insights, Laggard, Pace, Step
from kuma.foresight.traffic import SeenCaller, TrafficSummary
from kuma.resources import kinds
from kuma.resources.models.mesh_transition import Level
from kuma.resources.resource import Key, Model, Resource
from kuma.resources.view import MeshView

Changes = Mapping[Key, Resource[Any] | None]
"""Resources that would be created or replaced, or deleted (None)."""
LONG_ENOUGH = timedelta(days=1)
"""How long a mesh has to be observed before "nobody was seen" says something."""
_MOST = 1000


class Strict(Model):
    """Answers whether a mesh can be made STRICT without anybody being cut off, with what is missing for a yes.

    `reservation` says of whom a yes does not speak: callers that may be connected and were not seen yet.
    """

    answer: Literal["yes", "no", "unknown"]
    missing: tuple[str, ...] = ()
    reservation: str = ""


class Preview(Model):
    """Effects that a change would have in one mesh. `breaks`: somebody who calls today would be refused.

    `callers` are at most a thousand; `refused`, `admitted` and `declared_only` count them all. The last are those that
    have not been seen to call, and have an outbound to what would refuse them.
    """

    mesh: str
    breaks: bool
    refused: int = 0
    admitted: int = 0
    declared_only: int = 0
    callers: tuple[AffectedCaller, ...] = ()
    unobserved: tuple[str, ...] = ()
    """Dataplanes of which it is not known who calls them: some, see `unobserved_total`."""
    unobserved_total: int = 0
    observed_since: datetime | None = None
    within_seconds: int | None = None
    """Only who has called within so long is looked at; None for everybody who is known."""
    strict: Strict | None = None
    """If the change makes the mesh STRICT."""
    laggards: tuple[Laggard, ...] = ()
    endings: tuple[Ending, ...] = ()
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a mesh besides its view; who has not called `within` so long is taken for gone."""

    callers: Sequence[SeenCaller]
    summary: TrafficSummary
    insights: Insights
    now: datetime
    pace: Pace = DEFAULT_PACE
    within: timedelta | None = None

    @property
    def counting(self) -> Sequence[SeenCaller]:
        """The callers that are looked at."""
        if self.within is None:
            return self.callers
        return [caller for caller in self.callers if caller.last > self.now - self.within]


def within(text: object) -> timedelta | None:
    """Reads how long ago somebody may have called last to be looked at, as `7d`; None where nothing is said.

    Raises:
        InvalidResource: it is no duration.
    """
    if text in (None, ""):
        return None
    try:
        return durations.parse_duration(str(text)[:100])
    except ValueError as error:
        raise InvalidResource.of("within", str(error)) from None


def changed(view: MeshView, changes: Changes, now: datetime) -> MeshView:
    """Returns the view after a change: what is created would be created now."""
    made: dict[Key, Resource[Any] | None] = {}
    for key, resource in changes.items():
        before = view.find(key)
        if resource is not None:
            made[key] = replace(resource, creation_time=before.creation_time if before else now)
        elif before is not None:
            made[key] = None
    after = view.following(made)
    if after.mesh is None:  # all that is in a mesh goes with it
        return MeshView(view.name)
    return after


def preview(view: MeshView, changes: Changes, known: Known) -> Preview:
    """Returns what a change would do in a mesh."""
    after = changed(view, changes, known.now)
    compared, callers = Consequences(view, after), known.counting
    seen = sorted(compared.on(callers), key=_weight)
    declared = list(compared.unseen(callers))
    laggards = tuple(course.laggards(view, known.insights, known.now)) if course.concerns_tls(view, after) else ()
    steps = tuple(course.steps(view, after, laggards, known.pace)) if course.concerns_tls(view, after) else ()
    complete = known.now + timedelta(seconds=sum(step.at_most_seconds for step in steps))
    refused = [caller for caller in seen if caller.effect == "refused"]
    unobserved = known.summary.unobserved_total > 0
    return Preview(
        mesh=view.name,
        breaks=bool(refused) or (unobserved and bool(declared)),
        refused=len(refused),
        admitted=sum(caller.effect == "admitted" for caller in seen),
        declared_only=len(declared),
        callers=tuple((*seen, *declared)[:_MOST]),
        unobserved=known.summary.unobserved,
        unobserved_total=known.summary.unobserved_total,
        observed_since=known.summary.since,
        within_seconds=int(known.within.total_seconds()) if known.within else None,
        strict=_strict(compared, refused, laggards, known),
        laggards=laggards,
        endings=tuple(course.endings(view, after, known.insights, complete)) if steps else (),
        steps=steps,
    )


def _weight(caller: AffectedCaller) -> tuple[bool, float]:
    """Puts those first who are refused, and of them who has called last."""
    return caller.effect != "refused", -(caller.last.timestamp() if caller.last else 0.0)


def _strict(
    compared: Consequences, refused: Sequence[AffectedCaller], laggards: Sequence[Laggard], known: Known
) -> Strict | None:
    if compared.new.level is not Level.STRICT or compared.old.level is Level.STRICT:
        return None
    cut_off = list(_cut_off(refused, known.now))
    doubts = list(_doubts(laggards, known))
    if cut_off or doubts:
        return Strict(answer="no" if cut_off else "unknown", missing=(*cut_off, *doubts))
    began = known.now - traffic.UNSEEN
    reservation = (
        f"who began to call in plaintext over HTTP after {began:%Y-%m-%d %H:%M} UTC, and keeps its connection, may not "
        "have been seen yet"
    )
    return Strict(answer="yes", reservation=reservation)


def _cut_off(refused: Sequence[AffectedCaller], now: datetime) -> Iterator[str]:
    """Yields who is in the way of STRICT, and what can be done about it."""
    identified = [caller for caller in refused if caller.how == "meshTls"]
    inside = [caller for caller in refused if caller.how != "meshTls" and caller.dataplanes]
    outside = [caller for caller in refused if caller.how != "meshTls" and not caller.dataplanes]
    if outside:
        who = counted(len(outside), "caller shows", "callers show")
        each = "it" if len(outside) == 1 else "each"
        lack = f"{who} no certificate of the mesh and would be cut off: start kuma-dp beside {each}, or have it stop"
        yield f"{lack} calling{_when(outside, now)}"
    if inside:
        who = counted(len(inside), "caller", "callers")
        passes = "passes its proxy" if len(inside) == 1 else "pass their proxies"
        remedy = "have it call its proxy's outbound, or redirect it (transparent proxying)"
        yield f"{who} at an address of Dataplanes {passes} by and would be cut off: {remedy}{_when(inside, now)}"
    if identified:
        who = counted(len(identified), "caller")
        yield f"no permission admits {who} of the mesh: see kumactl suggest permissions{_when(identified, now)}"


def _when(callers: Sequence[AffectedCaller], now: datetime) -> str:
    """Tells of callers that were not seen lately since when, for who is gone for good is in nobody's way."""
    last = max((caller.last for caller in callers if caller.last), default=None)
    if last is None or now - last < LONG_ENOUGH:
        return ""
    none, they = ("It was not", "it is") if len(callers) == 1 else ("None was", "they are")
    return (
        f". {none} seen since {last:%Y-%m-%d %H:%M} UTC: if {they} gone for good, preview with those of the last day "
        "only (--within 1d)"
    )


def _doubts(laggards: Sequence[Laggard], known: Known) -> Iterator[str]:
    summary = known.summary
    if summary.unobserved_total:
        who = counted(summary.unobserved_total, "Dataplane has", "Dataplanes have")
        yield f"{who} not reported who calls: {', '.join(summary.unobserved)}; the kuma-dp of this version does"
    if summary.since is not None and known.now - summary.since < LONG_ENOUGH:
        since = f"{summary.since:%Y-%m-%d %H:%M}"
        yield f"it has been observed since {since} UTC only; who calls once a day was not seen: ask again after a day"
    if known.within is not None and known.within < traffic.UNSEEN:
        yield "who calls over HTTP now and then may not have been heard of for two hours: ask with --within 2h or more"
    if laggards:
        names = ", ".join(laggard.dataplane for laggard in laggards[:5])
        yield f"{counted(len(laggards), 'proxy', 'proxies')} cannot follow: {names}"


def by_mesh(resources: Iterable[Resource[Any]], deleted: Iterable[Key]) -> Mapping[str, Changes]:
    """Sorts changes by the mesh that they are of; what is of none changes no mesh."""
    found: dict[str, dict[Key, Resource[Any] | None]] = {}
    changes: dict[Key, Resource[Any] | None] = {**dict.fromkeys(deleted), **{r.key: r for r in resources}}
    for key, resource in changes.items():
        mesh = key.name if key.kind == kinds.MESH.name else key.mesh
        if mesh:
            found.setdefault(mesh, {})[key] = resource
    return found


_MOST_MESHES = 16
"""Meshes of one request: each is looked at as a whole."""


def check_extent(found: Mapping[str, Changes]) -> None:
    """Checks that changes are of few enough meshes to be previewed at once.

    Raises:
        InvalidResource: they are of too many.
    """
    if len(found) > _MOST_MESHES:
        reason = f"are of {len(found):,} meshes; {_MOST_MESHES} are the most. Ask about the others by another request"
        raise InvalidResource.of("resources", reason)
