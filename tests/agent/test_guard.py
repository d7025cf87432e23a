"""The guard of an Envoy, as a program."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from demo.processes import free_ports
from kuma.agent.contact import guard
from kuma.agent.contact.guarding import Guarding
from kuma.base import aio
from tests.fakes.clock import ManualClock
from tests.fakes.patience import PATIENCE


@pytest.fixture
def full_pipe() -> Iterator[int]:
    """A pipe that nobody reads, and that has no room left."""
    readable, writable = os.pipe()
    os.set_blocking(writable, False)
    try:
        while True:
            os.write(writable, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(writable, True)
    yield writable
    os.close(readable)
    os.close(writable)


def test_nobody_has_to_read_why_it_ends_an_envoy(full_pipe: int) -> None:
    (port,) = free_ports(1)
    with subprocess.Popen(["sleep", "infinity"]) as envoy:
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-S", guard.__file__, "127.0.0.1", str(port), "0.1", "0.1"],
                input=f"{envoy.pid}\n", text=True, stderr=full_pipe, timeout=PATIENCE, check=False,
            )  # fmt: skip
            assert done.returncode == guard.OUT_OF_CONTACT
            assert envoy.wait() == -signal.SIGTERM
        finally:
            envoy.kill()


async def test_one_that_ends_before_it_hears_what_it_guards_is_followed_by_another() -> None:
    clock, fails = ManualClock(), [True]
    (port,) = free_ports(1)

    def child() -> None:
        if fails[0]:
            os._exit(3)

    guarding = Guarding(f"http://127.0.0.1:{port}", 60.0, 0.1, clock, child)
    with subprocess.Popen(["sleep", "infinity"]) as envoy:
        try:
            async with asyncio.timeout(PATIENCE):
                await guarding.begin()
                running = aio.spawn(guarding.run(envoy.pid), name="guarding")
                for again in (True, False):
                    while not clock.sleepers and not running.done():
                        await asyncio.sleep(0.01)
                    assert not running.done(), "nobody guards Envoy any more"
                    fails[0] = again
                    clock.advance(1)
                envoy.kill()
                assert not await running, "it has not ended Envoy"
        finally:
            envoy.kill()
