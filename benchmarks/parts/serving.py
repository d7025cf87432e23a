"""A control plane in a process of its own, as `kuma-cp run` has it, that says what it costs.

python -m benchmarks.parts.serving DIRECTORY PORT PROXIES
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.parts import processes
from benchmarks.parts.figures import cpu, rss
from kuma.base import garbage, logs
from kuma.pki import issuer
from kuma.resources.models.mesh import DEFAULT_LEAF_LIFETIME
from kuma.xds.envoy.services import serving_label
from tests.fakes.control_plane import ALLOW_ALL, MTLS, Running, running

_LEAVES = 500
ANOTHER = (
    "{type: Mesh, name: default, mtls: {enabledBackend: ca-2, "
    "backends: [{name: ca-1, type: builtin}, {name: ca-2, type: builtin}]}}"
)


def sections(port: int, proxies: int, store: str = "") -> dict[str, Any]:
    """Settings: all proxies come from one address here, and more of them than usual."""
    limits = {"port": port, "pending_streams": 2 * proxies, "concurrent_streams": 2 * proxies}
    return {"xds_server": limits, **({"store": json.loads(store)} if store else {})}


def answers(cp: Running, began: float) -> processes.Answers:
    """What is asked of it; its CPU is told without `began`, which it took to be loaded."""

    def state() -> dict[str, Any]:
        cp.check()
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

    async def another() -> None:
        """Have the mesh issued by another CA."""
        await cp.apply(ANOTHER)

    def issued() -> bool:
        """Whether the change to another CA is complete."""
        transition = cp.parts.views.view("default").transition
        identities = [proxy.keeper.identity for proxy in cp.parts.proxies]
        return bool(transition and transition.spec.complete) and all(i and i.backend == "ca-2" for i in identities)

    async def signing() -> float:
        """Seconds of CPU that it takes to issue a leaf, by itself."""
        authority, now, start = cp.parts.meshes.state("default").trust.issuing, cp.clock.now(), time.thread_time()
        for _ in range(_LEAVES):
            await issuer.issue(authority, ("spiffe://default/web",), DEFAULT_LEAF_LIFETIME, now)
        return (time.thread_time() - start) / _LEAVES

    return {
        "start": start, "state": state, "settled": settled, "another": another, "issued": issued, "signing": signing,
    }  # fmt: skip


async def main(directory: Path, port: int, proxies: int, store: str = "") -> None:
    """Run until nobody asks any more."""
    began = cpu()
    async with running(directory, **sections(port, proxies, store)) as cp:
        await processes.answer(answers(cp, began))


if __name__ == "__main__":
    logs.log_as("info", "console")
    with garbage.kept_short():
        asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:]))
