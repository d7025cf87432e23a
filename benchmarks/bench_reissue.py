"""Measures a whole mesh that is issued by another CA, in steps, until the change is complete.

python -m benchmarks.bench_reissue [PROXIES]
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import processes

PROXIES = 1000


async def measure(count: int) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        async with processes.started("benchmarks.serving", directory, 0, count, log=directory / "log") as server:
            start = await server.ask("start")
            arguments = start["port"], start["ca"], 0, count, count, start["token"]
            async with processes.started("benchmarks.simulated", *arguments):
                await server.until("state", lambda state: state["connected"] == count)
                await server.until("settled", bool, pause=0.5)
                before, begun = await server.ask("state"), time.perf_counter()
                await server.ask("another")
                await server.until("issued", bool, pause=0.25)
                wall, after = time.perf_counter() - begun, await server.ask("state")
                used, signing = after["cpu"] - before["cpu"], await server.ask("signing") * count
                print(f"  {count} proxies, from the change of the Mesh to `complete`: {wall:.1f} s; ", end="")
                print(f"{used / count * 1e3:.1f} ms of CPU each, of which issuing {signing / used:.0%}")


def main(count: int = PROXIES) -> None:
    """Print the figures."""
    print("A whole mesh issued by another CA: both trusted, then issued by the new one, then the old connections ended")
    asyncio.run(measure(count))
    print()


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else PROXIES)
