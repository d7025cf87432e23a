"""A control plane in a process of its own, as `kuma-cp run` has it, that says what it costs.

python -m benchmarks.serving DIRECTORY PORT PROXIES
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from benchmarks import processes
from benchmarks.figures import cpu, rss
from kuma.base import garbage, logs
from kuma.xds.envoy import serving_label
from tests.fakes.control_plane import ALLOW_ALL, MTLS, Running, running


def sections(port: int, proxies: int) -> dict[str, Any]:
    """Settings: all proxies come from one address here, and more of them than usual."""
    return {"xds_server": {"port": port, "pending_streams": 2 * proxies, "concurrent_streams": 2 * proxies}}


def answers(cp: Running, began: float) -> processes.Answers:
    """What is asked of it; its CPU is told without `began`, which it took to be loaded."""

    def state() -> dict[str, Any]:
        return {"cpu": cpu() - began, "memory": rss(), "connected": len(cp.parts.proxies)}

    def settled() -> bool:
        """Whether all run what they should, and callers are sent to all; asked rarely, since it looks at all."""
        dataplanes = cp.parts.views.view("default").dataplanes.values()
        return all(map(serving_label.is_serving, dataplanes)) and all(p.converged for p in cp.parts.proxies)

    async def start() -> dict[str, Any]:
        await cp.apply(MTLS, ALLOW_ALL)
        return {
            "port": await cp.parts.xds.port(),
            "api": await cp.api_port(),
            "token": cp.token(),
            "ca": str(cp.directory / "ca.crt"),
        }

    return {"start": start, "state": state, "settled": settled}


async def main(directory: Path, port: int, proxies: int) -> None:
    """Run until nobody asks any more."""
    began = cpu()
    async with running(directory, **sections(port, proxies)) as cp:
        await processes.answer(answers(cp, began))


if __name__ == "__main__":
    logs.log_as("info", "console")
    with garbage.kept_short():
        asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
