"""What holds for all tests: none leaves tasks behind, reads the user's own files or settings, or starts late.

Whatever a test needs to itself (ports, directories, a home) is its own in every process of pytest, so that the suite
runs in several of them beside each other.
"""

import asyncio
import gc
import os
import signal
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

# gRPC would start its threads again in every process that a test forks, and abort that process when their files are
# closed before the program in it begins (grpc issue 43055). It reads this when it is imported.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "false"

# Some machines forbid Python to keep what it has compiled; each of the hundreds of programs that tests start would then
# compile everything again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

from cryptography.hazmat.primitives.asymmetric import rsa

from demo import postgres as demo_postgres
from demo.postgres import Postgres
from tests.fakes import examples  # noqa: F401 - no test of hypothesis has a time limit
from tests.fakes.control_plane import Running, running
from tests.fakes.patience import PATIENCE
from tests.fakes.stores import new_store
from tests.order_of_tests import (  # noqa: F401 - hooks
    pytest_collection_modifyitems,
    pytest_configure_node,
    pytest_xdist_make_scheduler,
)

gc.disable()  # until all tests are imported: see `little_garbage_is_sought`


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--bless", action="store_true", help="take today's Envoy configuration as the golden one")


_KEYS = 16
"""RSA keys of a size that are made before the first is given out again."""


@pytest.fixture(scope="session", autouse=True)
def nothing_of_the_users_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A home, and settings, that are not the ones of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        for name in [name for name in os.environ if name.startswith("KUMA_")]:
            environment.delenv(name)
        yield


@pytest.fixture(scope="session", autouse=True)
def little_garbage_is_sought() -> None:
    """All tests, and what they import, stay: every full collection would look at a million of their objects again.

    What a test leaves is little, so collections are rare; by Python's own thresholds they take an eighth of the time.
    """
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def rsa_keys_come_again() -> Iterator[None]:
    """Gives RSA keys out in turn: to make one takes as long as all else at the start of a control plane.

    A test sees many others before it gets one again.
    """
    made: defaultdict[tuple[int, int], deque[rsa.RSAPrivateKey]] = defaultdict(deque)
    make = rsa.generate_private_key

    def give(public_exponent: int, key_size: int) -> rsa.RSAPrivateKey:
        keys = made[public_exponent, key_size]
        keys.append(keys.popleft() if len(keys) >= _KEYS else make(public_exponent, key_size))
        return keys[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rsa, "generate_private_key", give)
        yield


@pytest.fixture(autouse=True)
async def no_task_is_left() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    left = {task for task in asyncio.all_tasks() - before if task is not asyncio.current_task() and not task.done()}
    if left:  # one that has been cancelled may need a few more turns of the loop
        _, left = await asyncio.wait(left, timeout=PATIENCE)
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


@pytest.fixture(scope="session")
def postgres_instance() -> Iterator[Postgres]:
    """A PostgreSQL server for all tests of this process that want one, and do not stop it."""
    with demo_postgres.server() as found:
        yield found


@pytest.fixture
async def postgres(postgres_instance: Postgres, tmp_path: Path) -> tuple[str, ...]:
    """The address of a new store in a database of its own; see `tests.fakes.stores`."""
    return await new_store(postgres_instance, tmp_path)
