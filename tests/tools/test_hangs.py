"""A test that hangs ends, says where, and takes nobody down with it, although threads run meanwhile."""

import subprocess
import sys
from pathlib import Path

from tests.fakes.patience import PATIENCE

ROOT = Path(__file__).resolve().parents[2]
SUITE = """
import asyncio
import threading

def spin(stop):
    while not stop.is_set():
        sum(range(100))

async def test_that_hangs():
    stop = threading.Event()
    threads = [threading.Thread(target=spin, args=(stop,), name="spinning", daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        await asyncio.Event().wait()
    finally:
        stop.set()

def test_that_comes_after_it():
    pass
"""


def test_a_hang_is_reported_and_the_next_test_runs(tmp_path: Path) -> None:
    (tmp_path / "test_suite.py").write_text(SUITE)
    options = ("-c", str(ROOT / "pyproject.toml"), "--rootdir", str(tmp_path), "--timeout=1", "-q")
    command = [sys.executable, "-m", "pytest", *options, str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 failed, 1 passed" in done.stdout
    assert "Timeout (>1.0s)" in done.stdout
    assert "Stack of spinning" in done.stdout + done.stderr
