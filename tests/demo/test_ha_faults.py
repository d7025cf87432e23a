"""What `make demo-ha` does to three control planes and their database, for less long: no request fails."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from demo import ha, postgres
from demo.ha import Faults
from demo.processes import Processes
from demo.several import SeveralControlPlanes
from demo.steps import Steps
from tests.integration.sidecars import BETWEEN_CALLS

SHORT = Faults(away=12, read_only=5, cut=22, pause=12, between_calls=2 * BETWEEN_CALLS)
"""Long enough that others lead (10 seconds without a word), and that who is cut off sends its proxies away (19)."""


@pytest.fixture
def steps(tmp_path: Path) -> Iterator[Steps]:
    with postgres.server() as database, Processes(tmp_path) as processes:
        found = Steps(SeveralControlPlanes(tmp_path, processes, database))
        ha.start(found)
        yield found


def test_no_request_fails_whoever_is_stopped_or_cut_off_and_whatever_becomes_of_the_database(steps: Steps) -> None:
    """Each fault raises `Failed` when a request did, or when there were too few to say anything."""
    for fault in (ha.pause_the_leader, ha.cut_one_off, ha.fail_the_database_over, ha.stop_the_database):
        fault(steps, SHORT)
