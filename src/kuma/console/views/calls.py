"""Relates services: who may call whom, who was seen to, and who would be refused under STRICT. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, NamedTuple

from kuma.foresight.consequences import Consequences
from kuma.foresight.judge import Judge
from kuma.foresight.traffic import SeenCaller
from kuma.policy import decision
from kuma.policy.authorization import Admission
from kuma.policy.decision import REFUSED, WOULD_BE_REFUSED, Shown
from kuma.resources.models.mesh import Backend, Mtls
from kuma.resources.view import MeshView

State = Literal["breaks", "tried", "used", "partly", "allowed", "refused"]
STATES: Mapping[State, tuple[str, str]] = {
    "breaks": ("▲", "calls today, and would be refused under STRICT"),
    "tried": ("✕", "tries to, and is refused"),
    "used": ("●", "may call, and does"),
    "partly": ("◐", "may call some of its inbounds, or some of it may"),
    "allowed": ("○", "may call, and was not seen to"),
    "refused": ("·", "may not call"),
}
"""Each with a mark, and what it says; those that matter most come first."""
_HOW = {"meshTls": "mutual TLS", "foreignTls": "a TLS of its own", "plaintext": "plaintext"}
Pair = tuple[str, str]


class Relation(NamedTuple):
    """What is between a caller and a service."""

    caller: str
    called: str
    state: State
    connections: int = 0
    last_day: int = 0
    last: datetime | None = None
    hows: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rules:
    """Permissions of a mesh by the services that they are about, as they are under STRICT."""

    judge: Judge
    strict: MeshView
    services: tuple[str, ...]
    shown: Mapping[str, frozenset[Shown]]
    """What certificates of a service show."""
    admissions: Mapping[str, tuple[Admission, ...]]
    """Whom the inbounds of a service admit; each once."""
    _known: dict[tuple[int, Shown], bool] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, view: MeshView) -> Rules:
        """Reads them from a view."""
        strict = under_strict(view)
        judge = Judge(strict)
        shown: dict[str, set[Shown]] = {}
        admissions: dict[str, dict[int, Admission]] = {}
        for dataplane in view.dataplanes.values():
            shows = judge.shown_by(dataplane)
            for service in dataplane.spec.services:
                shown.setdefault(service, set()).add(shows)
            for inbound in dataplane.spec.net.inbound:
                admission = judge.admission(dataplane, inbound)
                admissions.setdefault(inbound.service, {})[id(admission)] = admission
        return cls(
            judge,
            strict,
            tuple(sorted(shown)),
            {service: frozenset(found) for service, found in shown.items()},
            {service: tuple(found.values()) for service, found in admissions.items()},
        )

    def state(self, caller: str, called: str) -> State:
        """Tells whether a service may call another."""
        answers = {
            self._admits(admission, shows)
            for admission in self.admissions.get(called, ())
            for shows in self.shown.get(caller, ())
        }
        if answers == {True}:
            return "allowed"
        return "partly" if True in answers else "refused"

    def _admits(self, admission: Admission, shows: Shown) -> bool:
        key = id(admission), shows
        if key not in self._known:
            self._known[key] = decision.verdict(admission, shows) != REFUSED
        return self._known[key]


def under_strict(view: MeshView) -> MeshView:
    """Returns the view as it would be if the mesh were STRICT, by the authority that is enabled or the first listed."""
    if view.mesh is None:
        return view
    mtls = view.mesh.spec.mtls or Mtls()
    listed = mtls.backends or (Backend(name="ca-1", type="builtin"),)
    backends = tuple(backend.model_copy(update={"mode": "STRICT"}) for backend in listed)
    enabled = mtls.enabled_backend or backends[0].name
    spec = view.mesh.spec.model_copy(update={"mtls": Mtls(enabled_backend=enabled, backends=backends)})
    return view.having(view.mesh.with_spec(spec))


@dataclass(frozen=True, slots=True)
class Calls:
    """All relations of a mesh. Callers without an identity stand after the services, by where they came from."""

    rules: Rules
    seen: Mapping[Pair, Sequence[SeenCaller]]
    breaking: frozenset[Pair]
    unidentified: tuple[str, ...]

    @classmethod
    def of(cls, view: MeshView, rules: Rules, callers: Sequence[SeenCaller]) -> Calls:
        """Relates what was seen to what is permitted."""
        seen: dict[Pair, list[SeenCaller]] = {}
        for one in callers:
            for name in names(one):
                seen.setdefault((name, one.service), []).append(one)
        # Whoever shows a certificate of the mesh is judged by permissions already: STRICT is nothing to them.
        others = [one for one in callers if one.how != "meshTls"]
        found = Consequences(view, rules.strict).on(others) if others else ()
        refused = {(one.dataplane, one.port, one.caller) for one in found if one.effect == "refused"}
        breaking = {
            (name, one.service)
            for one in callers
            if one.outcome == WOULD_BE_REFUSED or (one.dataplane, one.port, one.caller) in refused
            for name in names(one)
        }
        known = set(rules.services)
        unidentified = sorted({caller for caller, _ in seen if caller not in known})
        return cls(rules, seen, frozenset(breaking), tuple(unidentified))

    @property
    def callers(self) -> tuple[str, ...]:
        """All that call or may call."""
        return (*self.rules.services, *self.unidentified)

    @property
    def called(self) -> tuple[str, ...]:
        """All that can be called."""
        return tuple(service for service in self.rules.services if service in self.rules.admissions)

    def relation(self, caller: str, called: str) -> Relation:
        """Returns what is between a caller and a service."""
        state, seen = self.rules.state(caller, called), self.seen.get((caller, called), ())
        if not seen:
            return Relation(caller, called, state)
        return Relation(
            caller,
            called,
            self._state(caller, called, state, seen),
            sum(one.connections for one in seen),
            sum(one.last_day for one in seen),
            max(one.last for one in seen),
            tuple(sorted({_HOW[one.how] for one in seen})),
        )

    def _state(self, caller: str, called: str, state: State, seen: Sequence[SeenCaller]) -> State:
        if (caller, called) in self.breaking:
            return "breaks"
        if caller in self.rules.shown and state == "refused":
            return "tried"
        if all(one.outcome == "refused" for one in seen):
            return "tried" if state == "refused" else state
        return "used"

    def of_service(self, service: str) -> tuple[list[Relation], list[Relation]]:
        """Returns the relations of a service: who calls or may call it, and whom it calls or may call."""
        incoming = (self.relation(caller, service) for caller in self.callers)
        outgoing = (self.relation(service, called) for called in self.called)
        return _ordered(incoming), _ordered(outgoing)


def names(caller: SeenCaller) -> tuple[str, ...]:
    """Returns what a caller is called: its services, or how and from where it came."""
    if caller.how == "meshTls":
        return tuple(caller.caller.split(","))
    return (f"{_HOW[caller.how]} from {caller.caller}",)


def _ordered(relations: Iterable[Relation]) -> list[Relation]:
    order = list(STATES)
    found = [one for one in relations if one.state != "refused"]
    return sorted(found, key=lambda one: (order.index(one.state), one.caller, one.called))


class Matrix(NamedTuple):
    """A part of the matrix: the services in its columns, and its rows."""

    called: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Relation]]]


def matrix(calls: Calls, callers: Sequence[str], called: Sequence[str]) -> Matrix:
    """Returns the relations of some callers with some services."""
    return Matrix(called, tuple((one, tuple(calls.relation(one, other) for other in called)) for one in callers))


def picture(calls: Calls, callers: Sequence[str], called: Sequence[str]) -> Iterator[tuple[State, str]]:
    """Yields, for each state but `refused`, the path of an SVG that draws it: four units for each pair, in runs."""
    paths: dict[State, list[str]] = {}
    for row, caller in enumerate(callers):
        run: tuple[State, int] | None = None
        for column in range(len(called) + 1):
            state = calls.relation(caller, called[column]).state if column < len(called) else "refused"
            if run is not None and run[0] != state:
                width = 4 * (column - run[1])
                paths.setdefault(run[0], []).append(f"M{4 * run[1]} {4 * row}h{width}v4h-{width}z")
                run = None
            if run is None and state != "refused":
                run = state, column
    for state in STATES:
        if state in paths:
            yield state, "".join(paths[state])
