"""The parent of workers asks them whether they are there; these are processes that do nothing but answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path

import pytest
import structlog
from prometheus_client import CollectorRegistry

from kuma.app.configuration.settings import Settings
from kuma.app.workers.parent import ROUND, SILENT, Workers
from kuma.app.workers.sharing import Share, Sharing
from kuma.base import aio
from tests.fakes.clock import ManualClock
from tests.fakes.patience import PATIENCE
from tests.integration.sidecars import children_of

ANSWERING = """
import asyncio, json, signal, socket, sys, threading
from kuma.app.workers.link import Link, ToParent

async def live():
    parent = ToParent(await Link.over(socket.socket(fileno=json.loads(sys.argv[1])["link"])))
    signal.signal(signal.SIGUSR1, lambda *_: threading.Event().wait())

    async def serve():
        await parent.begin()
        parent.tell_ready()

    serving = asyncio.create_task(serve())
    await parent.lost()

asyncio.run(live())
"""
"""A worker whose loop stands from SIGUSR1 on."""


class Answering(Share):
    """What such a worker is given."""

    def command(self) -> Sequence[str]:
        python, *_, given = super().command()
        return (python, "-c", ANSWERING, given)


class SharingWithAnswering(Sharing):
    """Shares with such workers."""

    def share(self, number: int, link: socket.socket) -> Share:
        found = super().share(number, link)
        return Answering(**{name: getattr(found, name) for name in found.__dataclass_fields__})


class Place:
    """Two of them, by a clock that the test moves."""

    def __init__(self, shared: Sharing) -> None:
        self.clock, self.registry = ManualClock(), CollectorRegistry()
        self.workers = Workers(shared, self.clock, self.registry)

    def pids(self) -> Mapping[int, int]:
        found = {}
        for child in children_of(os.getpid()):
            parts = Path(f"/proc/{child}/cmdline").read_text().split("\0")
            if ANSWERING in parts:
                found[json.loads(parts[-2])["number"]] = child
        return found

    def value(self, name: str, number: int) -> float | None:
        return self.registry.get_sample_value(name, {"worker": str(number)})

    async def round(self, answers: Sequence[int]) -> None:
        """The next question, which these answer."""
        await until(lambda: self.clock.sleepers == 1)
        self.clock.advance(ROUND)
        await until(lambda: self.clock.sleepers == 1)
        await until(lambda: not any(self.value("workers_unanswered", number) for number in answers))


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not holds():
            await asyncio.sleep(0.01)


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    ports = {"http": {"port": 0}, "https": {"enabled": False}}
    settings = Settings.model_validate({
        "general": {"workers": 2}, "apiServer": ports, "dpServer": {"port": 0}, "xdsServer": {"port": 0},
    })  # fmt: skip
    with contextlib.ExitStack() as stack:
        place = Place(SharingWithAnswering(settings, None, None, stack))
        running = aio.spawn(aio.supervise(place.workers.components()), name="workers")
        try:
            await until(lambda: place.workers.ready == [1, 2])
            yield place
        finally:
            await aio.stop([running])
            for pid in place.pids().values():
                os.kill(pid, signal.SIGKILL)  # these know of no good order
            await place.workers.end()


@pytest.mark.parametrize("how", [signal.SIGSTOP, signal.SIGUSR1], ids=["stopped", "its loop stands"])
async def test_one_that_answers_no_more_is_killed_and_another_takes_its_place(
    place: Place, how: signal.Signals
) -> None:
    before = place.pids()
    os.kill(before[1], how)
    with structlog.testing.capture_logs() as logged:
        for asked in range(1, SILENT + 1):
            await place.round(answers=[2])
            assert place.value("workers_unanswered", 1) == asked
        assert place.pids() == before
        place.clock.advance(ROUND)
        await until(lambda: place.clock.sleepers == 2)  # until the next question, and until another is started
        place.clock.advance(ROUND)
        await until(lambda: place.workers.ready == [1, 2])
    assert place.pids()[1] != before[1]
    assert place.pids()[2] == before[2]
    assert [place.value("workers_killed_total", number) for number in (1, 2)] == [1, 0]
    assert [place.value("worker_restarts_total", number) for number in (1, 2)] == [1, 0]
    events = [(entry["event"], entry["worker"], entry.get("how")) for entry in logged if entry["log_level"] == "error"]
    assert events == [
        ("a worker does not answer; it is killed", 1, None),
        ("a worker has ended; another takes its place", 1, "killed by SIGKILL"),
    ]


async def test_however_long_all_were_stopped_together_nobody_is_killed(place: Place) -> None:
    pids = place.pids()
    for pid in pids.values():
        os.kill(pid, signal.SIGSTOP)
    await until(lambda: place.clock.sleepers == 1)
    place.clock.advance(3600)
    await until(lambda: place.clock.sleepers == 1)
    assert [place.value("workers_unanswered", number) for number in (1, 2)] == [1, 1]
    for pid in pids.values():
        os.kill(pid, signal.SIGCONT)
    await until(lambda: not any(place.value("workers_unanswered", number) for number in (1, 2)))
    assert place.pids() == pids
