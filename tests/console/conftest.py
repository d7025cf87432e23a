"""One Chromium for all tests of the console."""

from collections.abc import Iterator

import pytest

from tools.browser import chromium


@pytest.fixture(scope="session")
def driven(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the Chromium is driven."""
    with chromium(tmp_path_factory.mktemp("chromium")) as found:
        yield found
