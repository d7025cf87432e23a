"""A control plane and the sidecars of its mesh. A file says what it begins with in fixtures of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.control_plane import Running, running
from tests.integration.sidecars import Sidecars, sidecars


@pytest.fixture
def declared() -> tuple[str, ...]:
    """The resources that are applied before a test begins."""
    return ()


@pytest.fixture
def xds_server() -> dict[str, Any]:
    """What is set of the discovery server, besides a free port."""
    return {}


@pytest.fixture
async def cp(tmp_path: Path, declared: tuple[str, ...], xds_server: dict[str, Any]) -> AsyncIterator[Running]:
    async with running(tmp_path, xds_server={"port": 0, **xds_server}) as found:
        await found.apply(*declared)
        yield found


@pytest.fixture
async def mesh(cp: Running, tmp_path: Path) -> AsyncIterator[Sidecars]:
    async with sidecars(cp, tmp_path) as found:
        yield found
