"""When a proxy's identity is issued, replaced and kept: the keeper alone, with an authority that fails when told to."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs
from structlog.typing import EventDict

from kuma.authorities import builtin
from kuma.base import aio
from kuma.base.audit import AuditFile
from kuma.base.errors import KumaError, Unauthenticated
from kuma.pki.authority import Authority, LocalAuthority, SignedLeaf, SignRequest
from kuma.resources.models.mesh import Conf
from kuma.xds.proxies.leaves.issuance import LeafIssuer
from kuma.xds.proxies.leaves.leaf import LeafKeeper, Wanted
from kuma.xds.proxies.metrics import Metrics
from tests.fakes.clock import ManualClock

DAY = timedelta(days=1)
LIFE = 30 * DAY
START = datetime(2026, 1, 1, tzinfo=UTC)


class Down(KumaError):
    """The authority cannot be reached."""


class Moody:
    """An authority that signs, or does not."""

    def __init__(self, inner: Authority) -> None:
        self._inner = inner
        self.name, self.fingerprint = inner.name, inner.fingerprint
        self.roots_pem, self.not_before, self.not_after = inner.roots_pem, inner.not_before, inner.not_after
        self.down = False
        self.asked = 0

    async def sign(self, request: SignRequest) -> SignedLeaf:
        self.asked += 1
        if self.down:
            raise Down("not reachable")
        return await self._inner.sign(request)


class World:
    """A clock, an authority, and keepers that run."""

    def __init__(self, clock: ManualClock, authority: Moody, audit: AuditFile) -> None:
        self.clock, self.authority, self.registry = clock, authority, CollectorRegistry()
        self.issuing = LeafIssuer(clock, Metrics(self.registry), audit)
        self.wanted: Wanted | None = Wanted("default", authority, ("spiffe://default/web",), LIFE)
        self.refused: KumaError | None = None
        self._stack = contextlib.AsyncExitStack()

    async def keeper(self, on_change: Callable[[], None] = lambda: None) -> LeafKeeper:
        """A keeper that has settled, and waits for the time of rotation."""
        found = LeafKeeper(
            "default.web-01", self.issuing, self.clock, lambda: self.wanted, on_change, self._check_holder
        )
        task = aio.spawn(found.run(), name="keeper")
        self._stack.push_async_callback(aio.stop, [task])
        await found.settled()
        await everybody_has_acted()
        return found

    def _check_holder(self) -> None:
        if self.refused is not None:
            raise self.refused

    async def advance(self, time: timedelta) -> None:
        """Let time pass as it does: in pieces, everybody acting in between."""
        end = self.clock.now() + time
        while (left := (end - self.clock.now()).total_seconds()) > 0:
            self.clock.advance(min(left, 600))
            await everybody_has_acted()

    def counted(self, metric: str) -> float:
        """The value of a counter of the authority."""
        return self.registry.get_sample_value(metric, {"mesh": "default", "backend": "ca-1"}) or 0

    async def close(self) -> None:
        await self._stack.aclose()


async def everybody_has_acted() -> None:
    """Nobody does any I/O here: what is to happen at this instant has happened after a few rounds of the loop."""
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    clock = ManualClock(START)
    authority = Moody(LocalAuthority("ca-1", await builtin.create_root("default", Conf(), clock)))
    audit = AuditFile(tmp_path / "audit.jsonl", clock)
    found = World(clock, authority, audit)
    yield found
    await found.close()
    audit.close()


async def test_certificates_are_replaced_in_time_and_not_all_in_one_instant(world: World) -> None:
    replaced: dict[int, list[timedelta]] = {number: [] for number in range(6)}
    for number, times in replaced.items():
        await world.keeper(lambda times=times: times.append(world.clock.now() - START))  # type: ignore[misc]
        assert times == [timedelta()], number
    await world.advance(0.74 * LIFE)
    assert all(times == [timedelta()] for times in replaced.values()), "nobody is early"
    await world.advance(0.07 * LIFE)
    seconds = [times[1] for times in replaced.values()]
    assert all(0.75 * LIFE <= time <= 0.8 * LIFE + timedelta(minutes=10) for time in seconds)
    assert len(set(seconds)) > 1, "six proxies share one instant"


async def test_a_failure_keeps_the_last_good_identity_and_is_made_up_for(world: World) -> None:
    keeper = await world.keeper()
    first, entry = keeper.identity, keeper.entry
    assert first is not None
    world.authority.down = True
    await world.advance(0.81 * LIFE)
    assert world.authority.asked > 2, "it has been tried again and again"
    assert (keeper.identity, keeper.entry) == (first, entry)
    assert 'backend "ca-1" did not sign: not reachable' in keeper.last_error or "is being spared" in keeper.last_error
    assert keeper.is_current
    world.authority.down = False
    await world.advance(timedelta(minutes=10))
    second = keeper.identity
    assert second is not None
    assert second.serial != first.serial
    assert (keeper.last_error, keeper.reason) == ("", "rotation")


async def test_a_failure_after_a_success_keeps_no_later_rotation_from_happening(world: World) -> None:
    """What failed was a change, not a rotation: the certificate that stays is still replaced in time."""
    keeper = await world.keeper()
    first, wanted = keeper.identity, world.wanted
    assert first is not None
    assert wanted is not None
    world.authority.down = True
    world.wanted = wanted._replace(uris=("spiffe://default/web", "kuma://version/v1"))
    keeper.check()
    await everybody_has_acted()
    assert keeper.last_error
    assert not keeper.is_current
    world.wanted, world.authority.down = wanted, False  # the change is taken back
    keeper.check()
    await world.advance(0.74 * LIFE)
    assert keeper.identity == first
    await world.advance(0.07 * LIFE)
    assert keeper.identity is not None
    assert keeper.identity.serial != first.serial


async def test_after_a_failed_rotation_the_next_ones_come_in_time(world: World) -> None:
    keeper = await world.keeper()
    first = keeper.identity
    await world.advance(0.74 * LIFE)
    world.authority.down = True
    await world.advance(0.07 * LIFE)
    assert keeper.last_error
    assert keeper.identity == first
    world.authority.down = False
    await world.advance(timedelta(minutes=5))  # the longest pause between two attempts
    assert keeper.identity != first
    serials = set()
    for _ in range(4):
        await world.advance(0.81 * LIFE)
        assert keeper.identity is not None
        assert keeper.identity.not_after > world.clock.now()
        serials.add(keeper.identity.serial)
    assert len(serials) == 4


async def test_another_authority_under_the_same_name_is_not_blamed_for_the_failures_of_the_first(world: World) -> None:
    keeper, wanted = await world.keeper(), world.wanted
    assert wanted is not None
    world.authority.down = True
    world.wanted = wanted._replace(lifetime=DAY)
    keeper.check()
    await world.advance(timedelta(minutes=30))  # its pauses are long by now, and it is spared as well
    assert keeper.is_refused
    other = Moody(LocalAuthority("ca-1", await builtin.create_root("default", Conf(), world.clock)))
    other.down = True
    world.wanted = wanted._replace(authority=other)
    assert not keeper.is_refused, "nobody has asked that one yet"
    keeper.check()
    await everybody_has_acted()
    assert (keeper.is_refused, other.asked) == (True, 1)
    other.down = False
    await world.advance(timedelta(seconds=5))
    assert keeper.is_current
    assert not keeper.is_refused


async def test_a_machine_that_slept_past_the_time_of_rotation_replaces_at_once(world: World) -> None:
    keeper = await world.keeper()
    first = keeper.identity
    assert first is not None
    world.clock.advance((40 * DAY).total_seconds())
    await everybody_has_acted()
    assert keeper.identity is not None
    assert keeper.identity.serial != first.serial
    assert keeper.identity.not_after > world.clock.now()


async def test_a_clock_that_jumps_ahead_and_back_leaves_nobody_with_a_leaf_that_does_not_hold(world: World) -> None:
    keeper, right = await world.keeper(), world.clock.now()
    world.clock.jump((40 * DAY).total_seconds())
    keeper.check()
    await everybody_has_acted()
    ahead = keeper.identity
    assert ahead is not None
    assert ahead.not_before < right, "it holds by the clocks that are right, too"
    assert ahead.not_after > world.clock.now()
    world.clock.jump(-(40 * DAY).total_seconds())
    keeper.check()
    await everybody_has_acted()
    back = keeper.identity
    assert back is not None
    assert (back.issued, back.not_after, keeper.reason) == (right, right + LIFE, "clock set back")


async def test_an_old_leaf_that_holds_is_kept_by_a_clock_that_jumps_a_little(world: World) -> None:
    keeper = await world.keeper()
    first = keeper.identity
    for seconds in (60, -120, 20 * DAY.total_seconds(), -20 * DAY.total_seconds()):
        world.clock.jump(seconds)
        keeper.check()
        await everybody_has_acted()
        assert keeper.identity == first


async def test_an_authority_that_has_not_begun_is_waited_for_and_the_old_leaf_is_kept(world: World) -> None:
    """As one that was made on a machine whose clock is ahead."""
    keeper, wanted = await world.keeper(), world.wanted
    first = keeper.identity
    assert wanted is not None
    of_later = await builtin.create_root("default", Conf(), ManualClock(START + timedelta(hours=1, seconds=15)))
    world.wanted = wanted._replace(authority=Moody(LocalAuthority("ca-2", of_later)))
    keeper.check()
    await everybody_has_acted()
    assert keeper.identity == first
    assert "begins at 2026-01-01T00:00:15Z" in keeper.last_error
    await world.advance(timedelta(minutes=1))
    assert keeper.identity != first


async def test_only_what_concerns_the_certificate_replaces_it(world: World) -> None:
    keeper = await world.keeper()
    first, wanted = keeper.identity, world.wanted
    assert first is not None
    assert wanted is not None
    for _ in range(3):
        keeper.check()
        await everybody_has_acted()
        world.wanted = wanted._replace(uris=(*wanted.uris,))  # equal, and another object
    assert keeper.identity == first
    for change, reason in (
        ({"uris": ("spiffe://default/api",)}, "names changed"),
        ({"lifetime": DAY}, "lifetime changed"),
    ):
        before = keeper.identity
        assert world.wanted is not None
        world.wanted = world.wanted._replace(**change)
        keeper.check()
        await everybody_has_acted()
        assert keeper.identity is not None
        assert before is not None
        assert keeper.identity.serial != before.serial
        assert keeper.reason == reason


async def test_every_issue_is_counted_and_on_record_with_the_reason(world: World, tmp_path: Path) -> None:
    keeper = await world.keeper()
    world.authority.down = True
    await world.advance(0.81 * LIFE)
    failures = world.authority.asked - 1
    assert failures > 2
    assert world.counted("cert_generation_failures_total") == failures
    world.authority.down = False
    await world.advance(timedelta(minutes=10))
    assert world.counted("cert_generation_total") == 2
    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert [(line["event"], line["reason"]) for line in lines] == [
        ("certificate issued", "connected"),
        ("certificate issued", "rotation"),
    ]
    assert keeper.identity is not None
    assert lines[-1]["serial"] == f"{keeper.identity.serial:x}"
    assert (lines[-1]["proxy"], lines[-1]["spiffeIds"]) == ("default.web-01", ["spiffe://default/web"])
    assert keeper.identity.key_pem.decode() not in (tmp_path / "audit.jsonl").read_text()


def told(logs: list[EventDict]) -> list[tuple[str, str]]:
    """The level and the reason of each line that says that nothing is issued."""
    return [(line["log_level"], line["reason"]) for line in logs if line["event"] == "certificate not issued"]


async def test_a_reason_for_which_nothing_is_issued_is_told_once_and_again_after_it_was_mended(world: World) -> None:
    await world.keeper()
    for _ in range(2):
        world.authority.down = True
        asked = world.authority.asked
        with capture_logs() as logs:
            await world.advance(0.81 * LIFE)
        assert world.authority.asked > asked + 3
        assert told(logs) == [("error", 'backend "ca-1" did not sign: not reachable')]
        world.authority.down = False
        with capture_logs() as logs:
            await world.advance(timedelta(minutes=10))
        assert [line["event"] for line in logs] == ["certificate issued again"]


async def test_a_renewal_that_a_token_does_not_allow_is_a_warning_and_told_once(world: World) -> None:
    keeper, first = await world.keeper(), world.authority.asked
    world.refused = Unauthenticated("the token has been revoked")
    with capture_logs() as logs:
        await world.advance(0.81 * LIFE)
        for _ in range(3):
            keeper.check()
            await everybody_has_acted()
    assert told(logs) == [("warning", "the token has been revoked")]
    assert (keeper.last_error, world.authority.asked) == ("the token has been revoked", first)
