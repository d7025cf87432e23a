"""A disk that has become full keeps no control plane from starting."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.patience import PATIENCE

PROGRAM = Path(__file__).with_name("restarted_on_a_full_disk.py")


@pytest.mark.system
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_a_control_plane_that_has_run_starts_on_a_full_disk(tmp_path: Path, end: signal.Signals) -> None:
    """On a small file system of its own, in a mount namespace: whoever is not root gets one with a user namespace."""
    namespaces = ["--mount"] if os.geteuid() == 0 else ["--user", "--map-root-user", "--mount"]
    command = ["unshare", *namespaces, sys.executable, str(PROGRAM), str(tmp_path), str(int(end))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stdout + done.stderr
