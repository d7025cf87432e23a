"""Measures how long the largest resource of each kind stops the event loop, in a mesh of many Dataplanes.

Everybody else waits for that long: a health check, another mesh, a proxy that connects. One of the Dataplanes has a
proxy, and what the proxy of the largest one would run is made. The clock has other processes in it, CPU has not.

    python -m benchmarks.bench_turns [DATAPLANES]
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import tempfile
from pathlib import Path

import httpx
import structlog

from benchmarks.bench_growth import fill
from kuma.base import garbage
from kuma.resources import kinds
from kuma.xds.envoy.node.capabilities import OLDEST
from tests.fakes.control_plane import ALLOW_ALL, MTLS, running
from tests.fakes.largest import crowd, documents, watched

DATAPLANES = 5000
LARGEST = kinds.DATAPLANE.key("largest", "default")
PATHS = {
    "Mesh": "/meshes/default",
    "Dataplane": "/meshes/default/dataplanes/largest",
    "TrafficPermission": "/meshes/default/traffic-permissions/largest",
    "MeshTrafficPermission": "/meshes/default/meshtrafficpermissions/largest",
    "TrafficLog": "/meshes/default/traffic-logs/largest",
    "MeshAccessLog": "/meshes/default/meshaccesslogs/largest",
    "Secret": "/meshes/default/secrets/largest",
    "GlobalSecret": "/global-secrets/largest",
}
LOOKS = ("/global-insight", "/meshes/default/dataplanes?size=1000", "/meshes/default/service-insights")


async def measure(count: int) -> None:
    """Print the longest turn for each kind, and for what lists everything."""
    with tempfile.TemporaryDirectory() as name:
        async with running(Path(name)) as cp:
            await cp.apply(MTLS, ALLOW_ALL)
            await fill(cp, crowd(count))
            for described in crowd(1):
                await cp.proxy(described, bring=False)
            base = f"http://localhost:{await cp.api_port()}"
            async with httpx.AsyncClient(base_url=base, trust_env=False, timeout=600) as client:
                for kind, document in documents().items():
                    body = json.dumps(document).encode()
                    async with watched() as turns:
                        answer = await client.put(
                            PATHS[kind], content=body, headers={"content-type": "application/json"}
                        )
                        await cp.parts.meshes.entries(LARGEST, 9901, OLDEST)
                        await asyncio.sleep(1)
                    assert answer.is_success, answer.text[:500]
                    _show(f"PUT {kind}, {len(body):,} bytes", turns.longest, turns.computed)
                for path in LOOKS:
                    async with watched() as turns:
                        (await client.get(path)).raise_for_status()
                    _show(f"GET {path}", turns.longest, turns.computed)


def _show(what: str, longest: float, computed: float) -> None:
    print(f"  {what:<45} {longest * 1e3:7.1f} ms, of which CPU {computed * 1e3:7.1f} ms")


def main(count: int = DATAPLANES) -> None:
    """Print the figures."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    print(f"Longest turn of the event loop, beside {count} Dataplanes")
    with garbage.kept_short():  # as in `kuma-cp`
        asyncio.run(measure(count))
    print("  reach: 100 ms\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else DATAPLANES)
