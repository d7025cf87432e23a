"""A look at a rollout costs what the proxies cost that something is to be decided about."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from kuma.mtls.observer import Rollout
from kuma.mtls.steps.progress import Patience, judge
from kuma.resources.models.mesh_transition import Level, Position
from kuma.xds.envoy.node.workers import APPLIED_WITHIN
from tests.fakes.largest import counted

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = NOW + 2 * APPLIED_WITHIN
PATIENCE = Patience(timedelta(seconds=30), timedelta(seconds=15))
BEFORE, POSITION = Position(level=Level.ENCRYPTING), Position(level=Level.STRICT)


def rollout(count: int, behind: int) -> Rollout:
    """A mesh of `count` proxies, of which the first `behind` do not run the position."""
    found = Rollout(POSITION)
    for number in range(count):
        progress = found.progress_of(f"p{number}", NOW)
        progress.joined(NOW)
        progress.ran(BEFORE if number < behind else POSITION, NOW)
        found.count(f"p{number}", NOW)
    return found


async def test_a_look_costs_the_same_however_many_proxies_run_what_they_should() -> None:
    calls = []
    for count in (100, 3000):
        found = rollout(count, behind=10)
        found.unsettled(LATER)  # by now all have applied it
        async with counted() as turns:
            unsettled = found.unsettled(LATER)
            progress = judge(unsettled, POSITION, LATER, PATIENCE, quiet=count - len(unsettled))
        assert progress == judge(found.proxies, POSITION, LATER, PATIENCE)
        assert len(progress.waiting) == 10
        calls.append(turns.most)
    assert calls[1] <= calls[0] + 10


async def test_whoever_ran_it_and_leaves_or_falls_behind_is_looked_at_again() -> None:
    found = rollout(3, behind=0)
    assert len(found.unsettled(NOW)) == 3, "their workers may not have applied it"
    assert not found.unsettled(LATER)
    found.proxies["p0"].gone(LATER)
    found.proxies["p1"].lacks_identity(LATER)
    for name in ("p0", "p1"):
        found.count(name, LATER)
    assert found.unsettled(LATER).keys() == {"p0", "p1"}
    found.drop("p0")
    assert found.unsettled(LATER).keys() == {"p1"}
    found.go_to(BEFORE, LATER)
    assert found.unsettled(LATER).keys() == {"p1", "p2"}
