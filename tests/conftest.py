"""What holds for all tests: none leaves tasks behind, and gRPC leaves forked processes alone."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

# gRPC would start its threads again in every process that a test forks, and abort that process when their files are
# closed before the program in it begins (grpc issue 43055). It reads this when it is imported.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "false"

from tests.fakes.control_plane import Running, running


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--bless", action="store_true", help="take today's Envoy configuration as the golden one")


@pytest.fixture(autouse=True)
async def no_task_is_left() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    left = {task for task in asyncio.all_tasks() - before if task is not asyncio.current_task() and not task.done()}
    if left:  # one that has been cancelled may need a few more turns of the loop
        _, left = await asyncio.wait(left, timeout=5)
    assert not left, f"tasks left behind: {[task.get_name() for task in left]}"


@pytest.fixture
def hangups() -> Iterator[None]:
    """What a test starts ends when its terminal closes, although the tests may have been started with nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
async def cp(tmp_path: Path) -> AsyncIterator[Running]:
    """A control plane with the settings that it has by itself. A file that needs another one has its own fixture."""
    async with running(tmp_path) as found:
        yield found
