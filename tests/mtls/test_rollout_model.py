"""The staged change of a mesh's mutual TLS, model-checked.

Random edits, partial and whole acknowledgements, rejections, authorities that fail and are repaired, joins, leaves,
hangs, lost connections that come back with an older state, delays, worker threads that apply late what their Envoy has
acknowledged, and restarts of the control plane, against two
invariants: no two proxies that may talk are ever in TLS states that cannot talk, unless one of them has not answered
for longer than it is waited for; and what is called complete is what was declared, at every proxy.
"""

from copy import deepcopy
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import combinations, permutations, product
from typing import NamedTuple

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kuma.mtls.steps.next_step import Declared, next_position
from kuma.mtls.steps.progress import Patience, ProxyProgress, judge
from kuma.resources.models.mesh_transition import Level, Position
from kuma.xds.envoy.node.workers import APPLIED_WITHIN
from tests.fakes.examples import examples

AUTHORITIES = ("a", "b", "c")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
PATIENCE = Patience(timedelta(seconds=30), timedelta(seconds=15))
LATENESS = timedelta(seconds=0.4)
"""How late a worker thread of an Envoy may be with what the Envoy has acknowledged."""


class Tls(NamedTuple):
    """TLS state in which an Envoy, or one of its worker threads, calls and is called."""

    sends: Level
    accepts: Level
    leaf: str
    roots: frozenset[str]


@dataclass
class Proxy:
    """What an Envoy really runs: as a client and as a server. `fresh` until it has its first whole configuration.

    `issued` is whose leaf it was given on its present stream; it may run an older one from before.
    """

    sends: Level = Level.PLAIN
    accepts: Level = Level.PLAIN
    leaf: str = ""
    issued: str = ""
    roots: frozenset[str] = frozenset()
    epoch: int = 0
    fresh: bool = True
    connected: bool = True
    hangs: bool = False
    rejects: bool = False
    confirmed: bool = False
    """It has acknowledged something on its present stream: what a proxy that comes back runs is not known before."""
    unanswered: timedelta = timedelta()
    """For how long it could have taken up what it should run and said so, and has not."""
    away: timedelta = timedelta()
    given_up: bool = False
    workers: list[tuple[datetime, Tls]] = field(default_factory=list)
    """What some of its worker threads may go on with, and until when."""

    @property
    def tls(self) -> Tls:
        return Tls(self.sends, self.accepts, self.leaf, self.roots)

    @property
    def in_use(self) -> set[Tls]:
        """What any of its worker threads may be doing."""
        return {self.tls, *(tls for _, tls in self.workers)}

    @property
    def answers(self) -> bool:
        return self.connected and not self.hangs and not self.rejects

    def take(self, position: Position, parts: int = 3, now: datetime = NOW) -> None:
        """Clusters come first, then the secrets, then the listeners. Its workers follow a moment later."""
        before, is_known = self.tls, not self.fresh
        self.sends = position.level
        if parts > 1:
            self.leaf = self.issued or self.leaf if position.level else ""
            self.roots = frozenset(position.roots)
        if parts > 2:
            self.accepts, self.epoch = position.level, position.epoch
            self.fresh = self.fresh and not self.has_identity(position)
        if self.tls != before and is_known:
            self.workers.append((now + LATENESS, before))

    def has_identity(self, position: Position) -> bool:
        """Whether it was given the identity that belongs to a position."""
        return position.level is Level.PLAIN or self.issued == position.authority

    def runs(self, position: Position) -> bool:
        whole = (position.level, position.level, position.authority, frozenset(position.roots), position.epoch)
        return (self.sends, self.accepts, self.leaf, self.roots, self.epoch) == whole


def can_talk(client: Tls, server: Tls) -> bool:
    if client.sends < Level.ENCRYPTING:
        return server.accepts < Level.STRICT
    return server.accepts > Level.PLAIN and client.leaf in server.roots and server.leaf in client.roots


@dataclass
class World:
    """The control plane's side is `position`, `complete`, `late` (stored) and `followers` (in memory)."""

    now: datetime
    declared: Declared
    position: Position
    complete: bool
    proxies: dict[str, Proxy]
    followers: dict[str, ProxyProgress]
    late: dict[str, datetime | None]
    failing: set[str]
    """The authorities that do not sign."""

    @property
    def leaves(self) -> bool:
        """Whether the way leads away from the authority that issues now."""
        return self.declared.authority != self.position.authority

    def advance(self) -> None:
        progress = judge(self.followers, self.position, self.now, PATIENCE)
        restless = {n: f for n, f in self.followers.items() if not f.is_quiet(self.position, self.now)}
        quiet = len(self.followers) - len(restless)
        assert judge(restless, self.position, self.now, PATIENCE, quiet=quiet) == progress
        self.late = {name: self.followers[name].since for name in progress.late}
        before = self.position
        self.position = next_position(before, self.declared, settled=progress.settled, alone=progress.alone)
        at_rest = self.position == before and self.declared.is_reached_at(before)
        self.complete = at_rest and progress.everybody
        self.take_stock()

    def let_pass(self, time: timedelta) -> None:
        """Patience is with proxies: the time in which the control plane fails one does not count."""
        self.now += time
        for proxy in self.proxies.values():
            is_behind = not (proxy.confirmed and proxy.runs(self.position)) and not self.fails(proxy)
            proxy.unanswered += time if is_behind else timedelta()
            proxy.away = timedelta() if proxy.connected else proxy.away + time
            proxy.workers = [(until, tls) for until, tls in proxy.workers if until > self.now]
            proxy.given_up |= proxy.unanswered >= PATIENCE.answer or proxy.away >= PATIENCE.absence

    def fails(self, proxy: Proxy) -> bool:
        return proxy.connected and not self.leaves and not proxy.has_identity(self.position)

    def take_stock(self) -> None:
        for name, follower in self.followers.items():
            if self.proxies[name].connected:
                self.issue(name)
            if follower.runs == self.position:
                continue
            proxy = self.proxies[name]
            if follower.since is None and proxy.connected and proxy.confirmed and proxy.runs(self.position):
                follower.ran(self.position, self.now)  # there is nothing to send
            else:
                follower.has_something_to_do(self.now)

    def issue(self, name: str) -> None:
        """The control plane's own part, which needs no answer of the proxy."""
        proxy, follower = self.proxies[name], self.followers[name]
        if self.position.authority not in self.failing:
            proxy.issued = self.position.authority
        if self.fails(proxy):
            follower.lacks_identity(self.now)
        else:
            follower.is_served(self.now)

    def acknowledge(self, name: str) -> None:
        proxy = self.proxies[name]
        self.issue(name)
        proxy.take(self.position, now=self.now)
        proxy.confirmed = True
        if proxy.has_identity(self.position):
            proxy.given_up, proxy.unanswered = False, timedelta()
        if not self.followers[name].unserved:
            self.followers[name].ran(self.position, self.now)


LISTED = st.sets(st.sampled_from(AUTHORITIES), min_size=1)


class Mesh(RuleBasedStateMachine):
    """What may happen to a `World`, in any order."""

    @initialize()
    def start(self) -> None:
        self.w = World(NOW, Declared(), Position(), True, {}, {}, {}, set())
        self.joined = 0

    def pick(self, data: st.DataObject) -> str:
        return data.draw(st.sampled_from(sorted(self.w.proxies)))

    @rule(level=st.sampled_from([Level.ENCRYPTING, Level.STRICT]), listed=LISTED, data=st.data())
    def edit(self, level: Level, listed: set[str], data: st.DataObject) -> None:
        self.w.declared = Declared(level, data.draw(st.sampled_from(sorted(listed))), tuple(sorted(listed)))
        self.w.complete = False  # in the same transaction
        self.w.take_stock()

    @rule()
    def turn_off(self) -> None:
        self.w.declared, self.w.complete = Declared(), False
        self.w.take_stock()

    @rule()
    def join(self) -> None:
        self.joined += 1
        name = f"p{self.joined}"
        self.w.proxies[name], self.w.followers[name] = Proxy(), ProxyProgress(left=self.w.now)
        self.w.followers[name].joined(self.w.now)
        self.advance()

    @precondition(lambda self: self.w.proxies)
    @rule(data=st.data())
    def leave_for_good(self, data: st.DataObject) -> None:
        name = self.pick(data)
        del self.w.proxies[name], self.w.followers[name]

    @precondition(lambda self: self.w.proxies)
    @rule(data=st.data())
    def lose_or_find_the_connection(self, data: st.DataObject) -> None:
        name = self.pick(data)
        proxy = self.w.proxies[name]
        proxy.connected = not proxy.connected
        if proxy.connected:
            proxy.issued, proxy.confirmed = "", False
            self.w.followers[name].joined(self.w.now)
        else:
            self.w.followers[name].gone(self.w.now)
        self.advance()

    @precondition(lambda self: self.w.proxies)
    @rule(data=st.data())
    def hang_or_go_on(self, data: st.DataObject) -> None:
        proxy = self.w.proxies[self.pick(data)]
        proxy.hangs = not proxy.hangs

    @precondition(lambda self: self.w.proxies)
    @rule(data=st.data())
    def reject_or_repent(self, data: st.DataObject) -> None:
        proxy = self.w.proxies[self.pick(data)]
        proxy.rejects = not proxy.rejects

    @rule(authority=st.sampled_from(AUTHORITIES))
    def fail_or_repair(self, authority: str) -> None:
        self.w.failing ^= {authority}
        self.w.take_stock()

    @precondition(lambda self: self.w.proxies)
    @rule(data=st.data(), parts=st.integers(1, 2))
    def take_a_part(self, data: st.DataObject, parts: int) -> None:
        proxy = self.w.proxies[self.pick(data)]
        if proxy.answers and not proxy.fresh:
            proxy.take(self.w.position, parts, self.w.now)

    @precondition(lambda self: self.w.proxies)
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        name = self.pick(data)
        if self.w.proxies[name].answers:
            self.w.acknowledge(name)

    @rule(steps=st.integers(1, 4))
    def go_on(self, steps: int) -> None:
        for _ in range(steps):
            for name, proxy in self.w.proxies.items():
                if proxy.answers:
                    self.w.acknowledge(name)
            self.w.let_pass(APPLIED_WITHIN)
            self.w.advance()

    @rule(seconds=st.sampled_from([0.3, 1, 10, 16, 31, 120]))
    def time_passes(self, seconds: float) -> None:
        self.w.let_pass(timedelta(seconds=seconds))
        self.advance()

    @rule()
    def restart(self) -> None:
        """What is stored is all that the next control plane knows: also who has ever run something."""
        known = self.w.position if self.w.complete else None
        self.w.followers = {
            name: ProxyProgress(
                left=self.w.now, runs=None if name in self.w.late else known, since=self.w.late.get(name)
            )
            for name in self.w.proxies
        }
        for name, proxy in self.w.proxies.items():
            proxy.connected = False
            proxy.confirmed = self.w.followers[name].runs is not None
        self.w.take_stock()

    @rule()
    def advance(self) -> None:
        self.w.advance()

    @invariant()
    def everybody_can_talk_to_everybody(self) -> None:
        counted = [proxy for proxy in self.w.proxies.values() if not proxy.fresh and not proxy.given_up]
        for client in counted:
            for server in counted:
                for sending, accepting in product(client.in_use, server.in_use):
                    assert can_talk(sending, accepting), (client, server)

    @invariant()
    def complete_is_what_was_declared(self) -> None:
        if self.w.complete:
            assert self.w.declared.is_reached_at(self.w.position)
            for name, proxy in self.w.proxies.items():
                assert proxy.runs(self.w.position), f"{name} accepts or trusts something else"
                assert proxy.in_use == {proxy.tls}, f"a worker of {name} accepts or trusts something else"

    @rule()
    def it_ends(self) -> None:
        """If nothing more happens, the declared state is reached, and within bounded time whoever hangs or is away.

        So it is if the declared authority signs, whatever the one does that the mesh comes from.
        """
        mesh = deepcopy(self.w)
        answering = [name for name, proxy in mesh.proxies.items() if proxy.answers]
        mesh.failing.discard(mesh.declared.authority)
        mesh.take_stock()
        if mesh.proxies and not answering and any(p.connected for p in mesh.proxies.values()):
            return  # nobody shows that a step can be taken
        for _ in range(14):
            for name in answering:
                mesh.acknowledge(name)
            mesh.let_pass(timedelta(seconds=6))
            mesh.advance()
        assert set(mesh.position.roots) == set(mesh.declared.roots)
        assert (mesh.position.level, mesh.position.authority) == (mesh.declared.level, mesh.declared.authority)
        if len(answering) == len(mesh.proxies):
            assert mesh.complete


TestMesh = Mesh.TestCase
TestMesh.settings = examples(600, steps=60)


def positions() -> list[Position]:
    """Every place that a mesh can be at."""
    found = [Position()]
    for count in range(1, len(AUTHORITIES) + 1):
        for roots in combinations(AUTHORITIES, count):
            levels = (Level.ACCEPTING, Level.ENCRYPTING, Level.STRICT)
            found += [Position(level=level, authority=a, roots=roots) for level in levels for a in roots]
    return found


def on_the_way(before: Position, after: Position) -> list[Proxy]:
    """What a proxy may run between two positions: the old one, parts of the new one, or all of it."""
    found = []
    for parts in range(4):
        proxy = Proxy(issued=before.authority)
        proxy.take(before)
        proxy.issued = after.authority
        if parts:
            proxy.take(after, parts)
        found.append(proxy)
    return found


def test_from_everywhere_to_everywhere_one_step_leaves_everybody_able_to_talk() -> None:
    goals = [Declared()] + [
        Declared(position.level, position.authority, position.roots)
        for position in positions()
        if position.level >= Level.ENCRYPTING
    ]
    for before, goal in product(positions(), goals):
        after = next_position(before, goal, settled=True)
        for client, server in product(on_the_way(before, after), repeat=2):
            assert can_talk(client.tls, server.tls), (before, goal, client, server)


def test_what_was_opened_under_an_authority_ends_before_its_root_goes_and_nothing_else_ends() -> None:
    both = Position(level=Level.STRICT, authority="b", roots=("a", "b"))
    goal = Declared(Level.STRICT, "b", ("b",))
    drained = next_position(both, goal, settled=True)
    assert (drained.epoch, drained.roots) == (1, ("a", "b"))
    retired = next_position(drained, goal, settled=True)
    assert goal.is_reached_at(retired)
    assert next_position(drained, goal, settled=False) == drained
    kept = Declared(Level.STRICT, "b", ("b", "a"))
    assert next_position(both, kept, settled=True).epoch == 0, "in another order"
    assert kept.is_reached_at(next_position(drained, kept, settled=True)), "a change of mind"
    again = next_position(retired, Declared(Level.STRICT, "b", ("b", "a")), settled=True)
    assert next_position(again, goal, settled=True).epoch == 2, "whatever has come in meanwhile"
    assert next_position(both, goal, settled=False, alone=True).epoch == 1
    assert next_position(retired, goal, settled=False, alone=True) == retired


def test_the_same_roots_in_another_order_are_no_step() -> None:
    """It would ask every proxy for another answer, and take from its time to give one, for nothing."""
    added = next_position(
        Position(level=Level.STRICT, authority="c", roots=("a", "c")),
        Declared(Level.STRICT, "c", ("a", "b", "c")),
        settled=True,
    )
    assert added.roots == ("a", "c", "b"), "what is trusted already comes first"
    for listed in permutations(AUTHORITIES):
        goal = Declared(Level.STRICT, "c", listed)
        assert goal.is_reached_at(added)
        for settled, alone in product((False, True), repeat=2):
            assert next_position(added, goal, settled=settled, alone=alone) == added
    assert not Declared(Level.STRICT, "c", ("a", "b")).is_reached_at(added)


def test_a_change_of_mind_while_draining_ends_the_drain_and_nothing_else() -> None:
    draining = Position(level=Level.STRICT, authority="b", roots=("a", "b"), epoch=3, draining=True)
    goal = Declared(Level.STRICT, "b", ("b", "a"))
    assert not goal.is_reached_at(draining)
    assert next_position(draining, goal, settled=True) == draining.model_copy(update={"draining": False})


def test_levels_are_taken_one_at_a_time_and_only_when_everybody_has_settled() -> None:
    strict, plain = Position(level=Level.STRICT, authority="a", roots=("a",)), Position()
    up, down = [Level.ACCEPTING, Level.ENCRYPTING, Level.STRICT], [Level.ENCRYPTING, Level.ACCEPTING, Level.PLAIN]
    ways = [(plain, Level.STRICT, up), (plain, Level.ENCRYPTING, up[:2]), (strict, Level.PLAIN, down)]
    for start, level, expected in [*ways, (strict, Level.ENCRYPTING, down[:1])]:
        goal = Declared(level, "a", ("a",)) if level else Declared()
        position, passed = start, list[Level]()
        while not goal.is_reached_at(position):
            if position.level is not Level.PLAIN:
                assert next_position(position, goal, settled=False) == position
            position = next_position(position, goal, settled=True)
            passed.append(position.level)
        assert passed == expected


def test_without_an_authority_nothing_moves() -> None:
    assert next_position(Position(), Declared(Level.STRICT), settled=True) == Position()


def test_a_hung_proxy_holds_up_only_its_step() -> None:
    declared = Declared(Level.STRICT, "a", ("a",))
    first = next_position(Position(), declared, settled=False)
    assert first.level is Level.ACCEPTING
    assert next_position(first, declared, settled=False) == first


OLD, NEW = Position(level=Level.STRICT, authority="a", roots=("a",)), Position(
    level=Level.STRICT, authority="a", roots=("a", "b")
)  # fmt: skip


def follower(*, connected: bool = True, runs: Position | None = OLD, behind: float | None = 0) -> ProxyProgress:
    since = None if behind is None else NOW - timedelta(seconds=behind)
    return ProxyProgress(left=NOW - timedelta(days=1), connected=connected, runs=runs, since=since)


def test_a_proxy_that_reconnects_all_the_time_is_given_up_like_one_that_hangs() -> None:
    restless, good = follower(), follower(runs=NEW, behind=None)
    for second in range(0, 30, 5):
        restless.gone(NOW + timedelta(seconds=second))
        restless.joined(NOW + timedelta(seconds=second + 1))
        assert not judge({"r": restless, "g": good}, NEW, NOW + timedelta(seconds=second), PATIENCE).settled
    progress = judge({"r": restless, "g": good}, NEW, NOW + timedelta(seconds=31), PATIENCE)
    assert progress.settled
    assert progress.late == ("r",)
    assert not progress.everybody


def test_a_proxy_that_was_given_up_holds_no_later_step_up() -> None:
    hung, good = follower(behind=31), follower(runs=OLD, behind=None)
    good.ran(NEW, NOW)
    applied = NOW + APPLIED_WITHIN
    assert judge({"h": hung, "g": good}, NEW, applied, PATIENCE).settled
    third = NEW.model_copy(update={"authority": "b"})
    hung.has_something_to_do(NOW)
    good.has_something_to_do(NOW)
    good.ran(third, NOW)
    assert judge({"h": hung, "g": good}, third, applied, PATIENCE).settled


def test_an_acknowledgement_counts_once_the_worker_threads_have_applied_it() -> None:
    """Whoever is early waits for the last; until somebody still waits for an answer, there is nothing to look at."""
    early, last = follower(), follower()
    early.ran(NEW, NOW)
    waiting = judge({"e": early, "l": last}, NEW, NOW, PATIENCE)
    assert waiting.waiting == ("l",)
    assert waiting.look_again == NOW + PATIENCE.answer
    later = NOW + timedelta(seconds=1)
    last.ran(NEW, later)
    before = judge({"e": early, "l": last}, NEW, later, PATIENCE)
    assert (before.waiting, before.settled, before.everybody) == ((), False, False)
    assert before.look_again == later + APPLIED_WITHIN
    after = judge({"e": early, "l": last}, NEW, later + APPLIED_WITHIN, PATIENCE)
    assert (after.settled, after.everybody, after.look_again) == (True, True, None)
    last.has_something_to_do(later + APPLIED_WITHIN)
    last.ran(NEW, later + APPLIED_WITHIN)
    assert judge({"e": early, "l": last}, NEW, later + APPLIED_WITHIN, PATIENCE).settled, "it is no other position"


def test_a_step_that_nobody_takes_up_is_not_followed_by_another() -> None:
    rejecting = {name: follower(behind=1000) for name in "xyz"}
    progress = judge(rejecting, NEW, NOW, PATIENCE)
    assert progress.late == ("x", "y", "z")
    assert not progress.settled


def test_a_proxy_that_gets_no_certificate_from_us_is_waited_for_for_ever() -> None:
    unserved = replace(follower(behind=1000), unserved=True)
    progress = judge({"u": unserved, "g": follower(runs=NEW, behind=None)}, NEW, NOW, PATIENCE)
    assert not progress.settled
    assert progress.waiting == ("u",)


def test_a_lost_connection_is_no_acknowledgement() -> None:
    away = follower(behind=5)
    away.gone(NOW - timedelta(seconds=1))
    good = follower(runs=NEW, behind=None)
    assert not judge({"a": away, "g": good}, NEW, NOW, PATIENCE).settled
    progress = judge({"a": away, "g": good}, NEW, NOW + timedelta(seconds=15), PATIENCE)
    assert progress.settled
    assert not progress.everybody


def test_the_time_in_which_we_fail_a_proxy_is_none_that_it_was_given_to_answer() -> None:
    good = follower(runs=NEW, behind=None)

    def late(proxy: ProxyProgress, seconds: int) -> bool:
        return bool(judge({"u": proxy, "g": good}, NEW, NOW + timedelta(seconds=seconds), PATIENCE).late)

    served, restless = follower(behind=1000), follower(behind=1000)
    for proxy in (served, restless):
        proxy.lacks_identity(NOW)
    served.is_served(NOW)
    restless.gone(NOW)
    assert (late(served, 29), late(served, 30)) == (False, True)
    assert (late(restless, 14), late(restless, 15)) == (False, True)
    restless.joined(NOW + timedelta(seconds=1))
    assert (late(restless, 29), late(restless, 30)) == (False, True)


def test_a_proxy_without_its_identity_does_not_run_what_it_has_acknowledged() -> None:
    unserved = follower(runs=NEW, behind=None)
    unserved.lacks_identity(NOW)
    progress = judge({"u": unserved, "g": follower(runs=NEW, behind=None)}, NEW, NOW, PATIENCE)
    assert (progress.settled, progress.everybody, progress.waiting) == (False, False, ("u",))


def test_who_has_left_something_unanswered_is_not_taken_to_run_what_it_ran_before_that() -> None:
    """The mesh went elsewhere and came back without it: it may have gone along, and not have said so."""
    progress = judge({"h": follower(runs=NEW, behind=31), "g": follower(runs=NEW, behind=None)}, NEW, NOW, PATIENCE)
    assert (progress.settled, progress.everybody, progress.late) == (True, False, ("h",))


def test_who_is_away_shows_nobody_that_a_step_can_be_taken() -> None:
    away, rejecting = follower(connected=False, runs=NEW, behind=None), follower(behind=1000)
    assert not judge({"a": away, "r": rejecting}, NEW, NOW, PATIENCE).settled


def test_nobody_is_there_once_all_have_been_away_for_as_long_as_an_answer_may_take() -> None:
    away = follower(runs=NEW, behind=None)
    away.gone(NOW)
    found = [judge({"a": away}, NEW, NOW + timedelta(seconds=seconds), PATIENCE) for seconds in (29, 30)]
    assert [(progress.alone, progress.settled) for progress in found] == [(False, False), (True, True)]
    assert found[0].look_again == NOW + PATIENCE.answer
