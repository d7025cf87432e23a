"""The largest resource of every kind, in a mesh of 5,000 Dataplanes, keeps nobody waiting.

Counted are calls of functions between two turns of the event loop: they are the same on every machine, busy or not.
`make bench` has the milliseconds.
"""

from __future__ import annotations

from pathlib import Path

import httpx

from benchmarks.bench_growth import fill
from benchmarks.bench_turns import PATHS
from kuma.base.tls.trust import NOBODY
from kuma.resources import kinds
from kuma.xds.envoy.node.capabilities import OLDEST
from tests.fakes.control_plane import ALLOW_ALL, MTLS, running
from tests.fakes.largest import counted, crowd, documents

DATAPLANES = 5000
CONNECTED = 50
MOST = 200_000
"""Calls, of Python and of C: about half of the 100 ms that are promised, on the machine for which those are. Without
turns, most kinds make far more."""


async def test_the_largest_resource_of_every_kind_keeps_nobody_waiting(tmp_path: Path) -> None:
    calls: dict[str, int] = {}
    async with running(tmp_path) as cp:
        await cp.apply(MTLS, ALLOW_ALL)
        await fill(cp, crowd(DATAPLANES))
        for described in crowd(CONNECTED):
            await cp.proxy(described, bring=False)
        base = f"http://localhost:{await cp.api_port()}"
        async with httpx.AsyncClient(base_url=base, verify=NOBODY, trust_env=False, timeout=600) as client:
            for kind, document in documents().items():
                async with counted() as turns:
                    answer = await client.put(PATHS[kind], json=document)
                    for name in ("largest", "p0"):
                        await cp.parts.meshes.entries(kinds.DATAPLANE.key(name, "default"), 9901, OLDEST)
                assert answer.is_success, answer.text[:500]
                calls[kind] = turns.most
    assert calls.keys() == {kind.name for kind in kinds.IN_EFFECT if not kind.read_only}
    assert max(calls.values()) < MOST, calls
