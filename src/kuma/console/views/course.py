"""Shows how far a change of mutual TLS is: its stages, and who is waited for. Pure: time is an argument."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Literal, NamedTuple

from kuma.console.views import times
from kuma.foresight.judge import Judge
from kuma.resources.models.mesh_transition import Awaited, Level, MeshTransitionSpec
from kuma.resources.view import MeshView

MODES = {Level.PLAIN: "off", Level.ENCRYPTING: "PERMISSIVE", Level.STRICT: "STRICT"}
_LEVELS = (
    (Level.PLAIN, "plaintext", "inbounds take plaintext, callers send plaintext"),
    (Level.ACCEPTING, "accepting", "inbounds take both, callers send plaintext"),
    (Level.ENCRYPTING, "encrypting", "inbounds take both, callers send mutual TLS"),
    (Level.STRICT, "strict", "inbounds take mutual TLS only, callers send it"),
)
_AUTHORITY = (
    ("preparing", "prepare", "every proxy learns to trust the new authority"),
    ("activating", "activate", "every proxy gets a certificate of it"),
    ("draining", "drain", "connections from before come to their end, if a root is to go"),
    ("finishing", "retire", "nobody trusts the old authority any more, unless it stays listed"),
)
_NAMED = 20


class Stage(NamedTuple):
    """One stage of a change."""

    name: str
    text: str
    state: Literal["done", "now", "to come"]


class Course(NamedTuple):
    """Where the mutual TLS of a mesh stands."""

    mode: str
    backend: str
    """The authority that issues, as `builtin/ca-1`; empty while mutual TLS is off."""
    step: str
    complete: bool
    origin: str
    goal: str
    since: datetime | None
    acknowledged: int
    followers: int
    stages: Sequence[Stage]
    waiting: Sequence[str]
    given_up: Sequence[str]
    away: Sequence[str]
    problem: str
    open_until: datetime | None


def course(view: MeshView, now: datetime) -> Course:
    """Returns where the mutual TLS of a mesh stands, and what is still to come."""
    spec = view.transition.spec if view.transition else MeshTransitionSpec(complete=True)
    backend, level = view.enabled_backend, Judge(view).level
    complete = spec.complete or (view.transition is None and level is Level.PLAIN)
    return Course(
        mode=MODES[level],
        backend=f"{backend.type}/{backend.name}" if backend else "",
        step="complete" if complete else spec.step or "beginning",
        complete=complete,
        origin=spec.origin,
        goal=spec.goal,
        since=spec.since,
        acknowledged=spec.acknowledged,
        followers=spec.followers,
        stages=tuple(_stages(spec, level, complete)),
        waiting=tuple(_named(spec.waiting_for, now)),
        given_up=tuple(_named(spec.unresponsive, now)),
        away=tuple(
            f"{one.name}, away since {times.whole(one.since)}, may go on until {times.whole(one.may_serve_until)}"
            for one in spec.out_of_contact[:_NAMED]
        ),
        problem=spec.problem,
        open_until=spec.open_until,
    )


def _stages(spec: MeshTransitionSpec, goal: Level, complete: bool) -> Iterator[Stage]:
    """Yields the stages of a change of authority if that is under way, else the levels on the way to `goal`."""
    beginnings = [beginning for beginning, _, _ in _AUTHORITY]
    word = spec.step.partition(":")[0]
    if not complete and word in beginnings and (word != "finishing" or _is_of_authority(spec)):
        yield from _marked([(name, text) for _, name, text in _AUTHORITY], beginnings.index(word))
        return
    levels = _LEVELS if spec.position.level <= goal else tuple(reversed(_LEVELS))
    shown = levels[: [level for level, _, _ in levels].index(goal) + 1]
    position = [level for level, _, _ in shown].index(spec.position.level)
    yield from _marked([(name, text) for _, name, text in shown], position)


def _is_of_authority(spec: MeshTransitionSpec) -> bool:
    """Tells whether another authority takes over, as in `STRICT with builtin/ca-1` to `STRICT with builtin/ca-2`."""
    before, after = (text.partition(" with ")[2] for text in (spec.origin, spec.goal))
    return bool(before and after) and before != after


def _marked(stages: Sequence[tuple[str, str]], position: int) -> Iterator[Stage]:
    for index, (name, text) in enumerate(stages):
        yield Stage(name, text, "done" if index < position else "now" if index == position else "to come")


def _named(proxies: Sequence[Awaited], now: datetime) -> Iterator[str]:
    for one in proxies[:_NAMED]:
        since = f" for {times.length(now - one.since)}" if one.since else ""
        yield f"{one.name}{since}{', not connected' if one.absent else ''}"
    if len(proxies) > _NAMED:
        yield f"and {len(proxies) - _NAMED} more"
