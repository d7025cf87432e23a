"""Two control planes over one PostgreSQL."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes.several import Several, several


@pytest.fixture
async def two(postgres: tuple[str, ...], tmp_path: Path) -> AsyncIterator[Several]:
    async with several(postgres, tmp_path, 2) as found:
        yield found
