"""What benchmarks measure beside us has the conversations that it is given, and nothing is waited for without end."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from benchmarks.parts import processes
from benchmarks.parts.bare import Talk, Talks
from benchmarks.parts.processes import Unmeasured
from kuma.app.serving import server_certificate

TALKS = Talks(first=Talk((100, 200), (10, 20, 30)), back=Talk((50,), (10, 5)), more=Talk((70,), (7, 7))).text()
CLIENTS = 3


async def test_a_bare_server_talks_to_who_comes_comes_back_and_is_told_more(tmp_path: Path) -> None:
    server_certificate.ensure(tmp_path, ("localhost",), datetime.now(UTC))  # one for both, which begin at once
    async with (
        processes.started("benchmarks.parts.bare", "serve", tmp_path, TALKS) as first,
        processes.started("benchmarks.parts.bare", "serve", tmp_path, TALKS) as second,
    ):
        starts = [await server.ask("start") for server in (first, second)]
        ports = ",".join(str(start["port"]) for start in starts)
        async with processes.started("benchmarks.parts.bare", "call", ports, starts[0]["ca"], CLIENTS, TALKS):
            here = await first.until("state", lambda state: state["done"] == CLIENTS - 1)
            there = await second.until("state", lambda state: state["done"] == 1)
            assert (here["connected"], there["connected"]) == (CLIENTS - 1, 1)
            await first.kill()
            await second.until("state", lambda state: state["done"] == CLIENTS)
            await second.ask("more")
            await second.until("state", lambda state: state["done"] == CLIENTS)


async def test_what_does_not_come_ends_a_benchmark_and_is_told_with_how_far_it_came(tmp_path: Path) -> None:
    async with processes.started("benchmarks.parts.bare", "serve", tmp_path, TALKS) as server:
        await server.ask("start")
        with pytest.raises(Unmeasured, match=r"benchmarks\.parts\.bare: state: not as .* after 0 s, but .*'done': 0"):
            await server.until("state", lambda state: state["done"] == CLIENTS, patience=0)
        await server.kill()
        with pytest.raises(Unmeasured, match=r"benchmarks\.parts\.bare has ended, and does not answer: state"):
            await server.ask("state")
