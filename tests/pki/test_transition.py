"""The staged change of a mesh's mutual TLS, model-checked: random edits, acknowledgements, joins, leaves, restarts.

Two invariants: no two connected proxies are ever in TLS states that cannot talk; and what is called complete is what
was declared, at every connected proxy.
"""

from dataclasses import dataclass

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kuma.pki.transition import Declared, next_position
from kuma.resources.mesh_transition import Level, Position

AUTHORITIES = ("a", "b", "c")


@dataclass(frozen=True)
class Runs:
    """What one proxy has acknowledged."""

    level: Level
    leaf: str
    roots: frozenset[str]

    @classmethod
    def of(cls, position: Position) -> "Runs":
        return cls(position.level, position.authority, frozenset(position.roots))


def can_talk(client: Runs, server: Runs) -> bool:
    if client.level < Level.ENCRYPTING:
        return server.level < Level.STRICT
    return server.level > Level.PLAIN and client.leaf in server.roots and server.leaf in client.roots


LISTED = st.sets(st.sampled_from(AUTHORITIES), min_size=1)


class Mesh(RuleBasedStateMachine):
    """The control plane's side is `position`; `proxies` is what each connected proxy runs."""

    @initialize()
    def start(self) -> None:
        self.declared = Declared()
        self.position = Position()
        self.proxies: dict[int, Runs] = {}
        self.joined = 0

    @rule(level=st.sampled_from([Level.ENCRYPTING, Level.STRICT]), listed=LISTED, data=st.data())
    def edit(self, level: Level, listed: set[str], data: st.DataObject) -> None:
        self.declared = Declared(level, data.draw(st.sampled_from(sorted(listed))), tuple(sorted(listed)))

    @rule()
    def turn_off(self) -> None:
        self.declared = Declared()

    @rule()
    def join(self) -> None:
        self.joined += 1
        self.proxies[self.joined] = Runs.of(self.position)

    @precondition(lambda self: self.proxies)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        del self.proxies[data.draw(st.sampled_from(sorted(self.proxies)))]

    @precondition(lambda self: self.proxies)
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        self.proxies[data.draw(st.sampled_from(sorted(self.proxies)))] = Runs.of(self.position)

    @rule()
    def advance(self) -> None:
        """Also what a control plane does that has been restarted: the position is all that it knows."""
        self.position = next_position(self.position, self.declared, settled=self.is_settled(), alone=not self.proxies)

    def is_settled(self) -> bool:
        return all(runs == Runs.of(self.position) for runs in self.proxies.values())

    @invariant()
    def everybody_can_talk_to_everybody(self) -> None:
        for client in self.proxies.values():
            for server in self.proxies.values():
                assert can_talk(client, server), (client, server)

    @rule()
    def it_ends(self) -> None:
        """If nothing more happens, the declared state is reached in a few steps, and every proxy runs it."""
        position, proxies = self.position, dict(self.proxies)
        for _ in range(12):
            proxies = dict.fromkeys(proxies, Runs.of(position))
            position = next_position(position, self.declared, settled=True, alone=not proxies)
        assert set(position.roots) == set(self.declared.roots)
        assert (position.level, position.authority) == (self.declared.level, self.declared.authority)
        assert next_position(position, self.declared, settled=True) == position


TestMesh = Mesh.TestCase
TestMesh.settings = settings(max_examples=300, stateful_step_count=60, deadline=None)


def test_without_an_authority_nothing_moves() -> None:
    assert next_position(Position(), Declared(Level.STRICT), settled=True) == Position()


def test_a_hung_proxy_holds_up_only_its_step() -> None:
    declared = Declared(Level.STRICT, "a", ("a",))
    first = next_position(Position(), declared, settled=False)
    assert first.level is Level.ACCEPTING
    assert next_position(first, declared, settled=False) == first
