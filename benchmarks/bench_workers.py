"""What several workers of one control plane give, on one machine and at one port: one and two, in the same run.

The processes are those that users have: `kuma-cp run --workers N` over PostgreSQL. CPU is that of all of them.

    python -m benchmarks.bench_workers [PROXIES]
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.parts import processes
from benchmarks.parts.figures import machine
from benchmarks.parts.processes import Unmeasured
from demo import postgres
from demo.mesh import DemoMesh, read
from demo.postgres import Postgres
from demo.processes import BIN, Processes, until
from tests.fakes.control_plane import ALLOW_ALL, MTLS

PROXIES = 300
WORKERS = (1, 2)
_QUIET = 3.0
"""Seconds without an answer of any proxy after which all run what they should."""
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cost:
    """Seconds until the last proxy has acknowledged the last of what it was sent; and how many each worker serves."""

    wall: float
    cpu: float
    shares: tuple[int, ...]


class Served(DemoMesh):
    """A control plane of several workers."""

    def __init__(self, home: Path, started: Processes, database: Postgres, workers: int, proxies: int) -> None:
        super().__init__(home, started)
        self.workers = workers
        self.environment |= database.settings(database.create(f"workers_{workers}"))
        for limit in ("PENDING_STREAMS", "CONCURRENT_STREAMS"):
            self.environment[f"KUMA_XDS_SERVER_{limit}"] = str(2 * proxies)

    def start_control_plane(self) -> subprocess.Popen[bytes]:
        """Start it, with a mesh that has mutual TLS."""
        subprocess.run([BIN / "kuma-cp", "migrate", "up"], env=self.environment, check=True, capture_output=True)
        command = [str(BIN / "kuma-cp"), "run", "--workers", str(self.workers)]
        self.parent = self.processes.start("kuma-cp", command, self.environment)
        until("it is ready", self._is_ready, self.processes)
        address = f"http://localhost:{self.ports.api}"
        self.kumactl("config", "control-planes", "add", "--name", "demo", "--address", address, "--overwrite")
        self.kumactl("apply", "-f", str(self.write("mesh.yaml", f"{MTLS}\n---\n{ALLOW_ALL}")))
        return self.parent

    def counted(self, name: str) -> list[float]:
        """The values of a metric."""
        _, body = read(f"http://127.0.0.1:{self.ports.diagnostics}/metrics")
        lines = [line for line in body.decode().splitlines() if line.startswith((f"{name}{{", f"{name} "))]
        return [float(line.rpartition(" ")[2]) for line in lines]

    def cpu(self) -> float:
        """Seconds that all of its processes have computed."""
        parent = self.parent.pid
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        return sum(map(_cpu, (str(parent), *children)))

    async def settled(self, count: int, begun: float) -> float:
        """Return how long it took until all were there, and nothing was acknowledged any more."""
        last, answers = begun, 0.0
        while time.perf_counter() - last < _QUIET or sum(self.counted("kuma_xds_streams_active")) < count:
            if time.perf_counter() - begun > processes.PATIENCE:
                there = sum(self.counted("kuma_xds_streams_active"))
                raise Unmeasured(f"{there:.0f} proxies of {count} are there after {processes.PATIENCE:.0f} s")
            found = sum(self.counted("kuma_xds_requests_received_total"))
            if found != answers:
                last, answers = time.perf_counter(), found
            await asyncio.sleep(0.3)
        return last - begun


def _cpu(pid: str) -> float:
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[11:13]
    return (int(user) + int(system)) / _TICK


@contextlib.asynccontextmanager
async def _clients(served: Served, count: int) -> AsyncIterator[None]:
    token = served.kumactl("generate", "dataplane-token", "--mesh", "default", "--valid-for", "24h").splitlines()[0]
    arguments = served.ports.xds, served.home / "cp" / "ca.crt", 0, count, count, token
    async with processes.started("benchmarks.parts.simulated", *arguments):
        yield


async def measure(database: Postgres, workers: int, count: int) -> tuple[Cost, Cost]:
    """What it takes that `count` proxies come, and that they come back after kill -9 of all processes."""
    with tempfile.TemporaryDirectory() as name, Processes(Path(name)) as started:
        served = Served(Path(name), started, database, workers, count)
        served.start_control_plane()
        before, begun = served.cpu(), time.perf_counter()
        async with _clients(served, count):
            costs = [await _cost(served, count, before, begun)]
            started.forget(served.parent)
            served.parent.send_signal(signal.SIGKILL)
            served.parent.wait()
            begun = time.perf_counter()
            await asyncio.to_thread(served.start_control_plane)
            costs.append(await _cost(served, count, 0.0, begun))
        return costs[0], costs[1]


async def _cost(served: Served, count: int, before: float, begun: float) -> Cost:
    wall = await served.settled(count, begun)
    return Cost(wall, served.cpu() - before, tuple(map(int, served.counted("kuma_xds_streams_active"))))


def main(count: int = PROXIES) -> None:
    """Print the figures."""
    print(f"{count} proxies at one port of one machine with {os.cpu_count()} cores, which runs the proxies, too")
    with postgres.server() as database:
        for workers in WORKERS:
            for what, cost in zip(("first", "back"), asyncio.run(measure(database, workers, count)), strict=True):
                each, shares = cost.cpu / count * 1e3, " and ".join(map(str, cost.shares))
                print(f"  {workers} worker(s), {what}: all after {cost.wall:5.1f} s, {each:4.1f} ms of CPU ({shares})")
    print(f"  {machine()}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else PROXIES)
