"""What the soak counts."""

import threading

from demo.mesh import Unanswered
from soak.handshakes import Handshakes
from tests.fakes.patience import PATIENCE


def test_a_proxy_that_does_not_answer_for_a_while_or_counts_anew_is_counted_on() -> None:
    done = threading.Event()
    counts = iter((3, None, 5, 1))

    def ask() -> int:
        if (count := next(counts, 1)) is None:
            raise Unanswered("no proxy")
        if count == 1:
            done.set()
        return count

    handshakes = Handshakes(ask)
    assert done.wait(PATIENCE)
    handshakes.stop()
    assert handshakes.total == 6
