"""Clocks that differ: the control plane's is ahead of its Envoys'."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from kuma.base.clock import SystemClock
from tests.fakes.control_plane import ALLOW_ALL, MTLS, Running, running
from tests.integration.changes import change
from tests.integration.sidecars import Sidecars, traffic


class Ahead(SystemClock):
    """The machine's clock, and a while more."""

    def now(self) -> datetime:
        return super().now() + timedelta(minutes=1)


@pytest.fixture
async def cp(tmp_path: Path) -> AsyncIterator[Running]:
    async with running(tmp_path, Ahead()) as found:
        await found.apply(ALLOW_ALL, MTLS)
        yield found


async def test_a_change_of_authority_by_a_clock_that_is_ahead_fails_no_handshake(cp: Running, mesh: Sidecars) -> None:
    web, _ = await mesh.pair("tcp")
    async with traffic(lambda: web.talk("backend")) as answers:
        await change(cp, MTLS.replace("ca-1", "ca-2"))
        await change(cp, MTLS)
    assert len(answers) > 10
    assert set(answers) == {b"backend:hello"}
