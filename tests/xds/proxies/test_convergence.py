"""Whether all have converged is asked whenever one has got further: all together that costs what they are."""

from __future__ import annotations

from kuma.resources import kinds
from kuma.xds.proxies.connected_proxies import Proxies
from kuma.xds.proxies.convergence import Convergence

COUNT = 500


class Converging:
    """A proxy that is asked whether it has converged."""

    asked = 0

    def __init__(self, number: int, mesh: str = "default") -> None:
        self.key = kinds.DATAPLANE.key(f"p{number}", mesh)
        self.is_there = False

    @property
    def converged(self) -> bool:
        Converging.asked += 1
        return self.is_there


def connected(many: list[Converging]) -> Proxies:
    proxies = Proxies()
    for proxy in many:
        proxies.add(proxy)  # type: ignore[arg-type]  # does what is asked of one here
    return proxies


def test_who_asks_after_each_of_many_that_has_got_there_asks_each_of_them_a_few_times() -> None:
    for order in (1, -1):
        many = [Converging(number) for number in range(COUNT)]
        convergence = Convergence(connected(many))
        Converging.asked = 0
        for proxy in many[::order]:
            assert not convergence.of("default")
            proxy.is_there = True
        assert convergence.of("default")
        assert Converging.asked <= 5 * COUNT


def test_one_that_has_something_to_do_again_is_seen_and_one_that_has_left_is_not_waited_for() -> None:
    first, last, other = Converging(1), Converging(2), Converging(3, "another")
    proxies = connected([first, last, other])
    convergence = Convergence(proxies)
    first.is_there = True
    assert not convergence.of("default")
    first.is_there, last.is_there = False, True
    assert not convergence.of("default"), "it had been there"
    proxies.remove(first)  # type: ignore[arg-type]
    assert convergence.of("default")
    assert not convergence.of("another")
