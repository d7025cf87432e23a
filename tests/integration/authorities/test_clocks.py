"""Clocks that differ: the control plane's is ahead of its Envoys'."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from kuma.base import aio
from kuma.base.clock import SystemClock
from tests.fakes.control_plane import ALLOW_ALL, MTLS, Running, running
from tests.fakes.patience import PATIENCE
from tests.integration.changes import change
from tests.integration.sidecars import Sidecars, traffic


class Settable(SystemClock):
    """The machine's clock, and a while more, which may be set."""

    ahead = timedelta(minutes=1)

    def now(self) -> datetime:
        return super().now() + self.ahead


@pytest.fixture
def clock() -> Settable:
    return Settable()


@pytest.fixture
async def cp(tmp_path: Path, clock: Settable) -> AsyncIterator[Running]:
    async with running(tmp_path, clock) as found:
        await found.apply(ALLOW_ALL, MTLS)
        yield found


async def test_a_change_of_authority_by_a_clock_that_is_ahead_fails_no_handshake(cp: Running, mesh: Sidecars) -> None:
    web, _ = await mesh.pair("tcp")
    async with traffic(lambda: web.talk("backend")) as answers:
        await change(cp, MTLS.replace("ca-1", "ca-2"))
        await change(cp, MTLS)
    assert len(answers) > 10
    assert set(answers) == {b"backend:hello"}


async def test_a_clock_that_is_set_by_an_hour_in_a_change_of_authority_fails_no_handshake(
    cp: Running, mesh: Sidecars, clock: Settable
) -> None:
    """Back, and forth again, when the first step has been taken."""
    views = cp.parts.views
    web, _ = await mesh.pair("tcp")
    async with traffic(lambda: web.talk("backend")) as answers:
        for authority, hours in (("ca-2", -1), ("ca-1", 1)):
            before = views.view("default").position
            changed = aio.spawn(change(cp, MTLS.replace("ca-1", authority)), name="change")
            async with asyncio.timeout(PATIENCE):
                await views.until(lambda: views.view("default").position != before)  # noqa: B023 - at once
            clock.ahead += timedelta(hours=hours)
            await changed
    assert len(answers) > 10
    assert set(answers) == {b"backend:hello"}
