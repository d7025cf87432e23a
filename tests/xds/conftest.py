"""A control plane with the settings that it has by itself. A file that needs another one has a fixture of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes.control_plane import Running, running


@pytest.fixture
async def cp(tmp_path: Path) -> AsyncIterator[Running]:
    async with running(tmp_path) as found:
        yield found
