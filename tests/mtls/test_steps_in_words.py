"""What people are told of a rollout that is under way."""

import pytest

from kuma.mtls.steps.next_step import Declared, step
from kuma.resources.models.mesh_transition import Level, Position

STRICT_A = Declared(Level.STRICT, "a", ("A",))
STRICT_B = Declared(Level.STRICT, "b", ("B",))


@pytest.mark.parametrize(
    ("position", "declared", "words"),
    [
        (Position(), Declared(Level.STRICT), "waiting"),
        (Position(level=Level.ACCEPTING, authority="a", roots=("A",)), STRICT_A, "every inbound learns to accept both"),
        (Position(level=Level.ENCRYPTING, authority="a", roots=("A",)), STRICT_A, "callers encrypt"),
        (Position(level=Level.STRICT, authority="a", roots=("A",)), STRICT_A, "finishing"),
        (Position(level=Level.STRICT, authority="a", roots=("A", "B")), STRICT_B, "preparing"),
        (Position(level=Level.STRICT, authority="b", roots=("A", "B")), STRICT_B, "activating"),
        (Position(level=Level.STRICT, authority="b", roots=("A", "B"), draining=True), STRICT_B, "draining"),
        (Position(level=Level.STRICT, authority="a", roots=("A",)), Declared(), "inbounds accept mutual TLS only"),
        (Position(), Declared(), "turning mutual TLS off"),
    ],
)
def test_a_step_says_what_is_being_done(position: Position, declared: Declared, words: str) -> None:
    assert step(position, declared).startswith(words)
