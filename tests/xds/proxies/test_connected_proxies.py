"""A change that concerns thousands of proxies is noted for all of them at once, and followed by some in each turn."""

from __future__ import annotations

import asyncio
from typing import Any

from kuma.resources import kinds
from kuma.xds.proxies.connected_proxies import Proxies

COUNT, AT_ONCE = 1000, 40


class Following:
    """One of many proxies: what is asked of it, and in which turn of the loop."""

    turn = 0

    def __init__(self, number: int) -> None:
        self.key = kinds.DATAPLANE.key(f"p{number}", "default")
        self.outdated = False
        self.followed: list[int] = []

    def note_change(self) -> None:
        self.outdated = True

    def follow_change(self) -> None:
        self.followed.append(Following.turn)


async def turns(until: Any) -> None:
    while not until():
        Following.turn += 1
        await asyncio.sleep(0)


async def test_of_many_proxies_some_follow_a_change_in_each_turn_and_none_is_taken_to_run_it() -> None:
    proxies, many = Proxies(AT_ONCE), [Following(number) for number in range(COUNT)]
    for proxy in many:
        proxies.add(proxy)  # type: ignore[arg-type]  # does what is asked of one here
    names = frozenset(proxy.key.name for proxy in many)
    proxies.touch("default", names)
    assert all(proxy.outdated for proxy in many)
    assert sum(bool(proxy.followed) for proxy in many) == AT_ONCE
    # Which of them begin is not told by their names: a set has no order.
    again, waiting = (next(proxy for proxy in many if bool(proxy.followed) is begun) for begun in (True, False))
    proxies.touch("default", frozenset({again.key.name, waiting.key.name}))
    gone = next(proxy for proxy in many if not proxy.followed)
    proxies.remove(gone)  # type: ignore[arg-type]
    await turns(lambda: all(proxy.followed for proxy in many if proxy is not gone))
    found = [turn for proxy in many for turn in proxy.followed]
    assert max(found.count(turn) for turn in set(found)) <= 2 * AT_ONCE, "both changes began in one turn"
    once = [len(proxy.followed) for proxy in many if proxy not in (again, gone)]
    assert once == [1] * (COUNT - 2)
    assert gone.followed == [], "it has gone meanwhile"
