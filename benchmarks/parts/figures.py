"""Measures and prints times and sizes."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

ENOUGH = 100
"""Rounds from which on one speaks of a p99; of fewer the worst is told."""


def rss() -> int:
    """Bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def cpu() -> float:
    """Seconds that this process has computed, in all of its threads; `os.times` knows hundredths only."""
    return time.process_time()


def shown(times: Sequence[float]) -> str:
    """Median and p99, in milliseconds."""
    high = statistics.quantiles(times, n=100, method="inclusive")[98] if len(times) >= ENOUGH else max(times)
    name = "p99" if len(times) >= ENOUGH else "worst"
    return f"p50 {statistics.median(times) * 1e3:6.1f} ms, {name} {high * 1e3:6.1f} ms"


def machine() -> str:
    """What a figure was measured on, and what others did there meanwhile."""
    return f"{os.cpu_count()} cores, load of the last minute {os.getloadavg()[0]:.1f}"
