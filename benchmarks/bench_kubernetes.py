"""Measures what the objects of many Pods cost a control plane on Kubernetes: memory, and requests to the API server.

A real API server is asked; nothing runs the Pods. In steady state there should be watches only; for a change of a Pod
that its Dataplane tells of, one write of it, and for another change none.

    python -m benchmarks.bench_kubernetes [PODS]
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

from demo.processes import until
from kuma.kubernetes.api import credentials
from kuma.kubernetes.api.client import ApiClient
from tools.kubernetes.build import binaries
from tools.kubernetes.cluster import Cluster
from tools.kubernetes.installed import Installed, installed

PODS = 1000
_STEADY = 20.0
"""Seconds in which nothing is changed."""
_CHANGED = 100
"""Pods of which something is changed."""
_REQUESTS = re.compile(r'^kuma_kubernetes_api_requests_total\{method="(\w+)",status="\d+"\} ([\d.]+)$', re.M)


def main(pods: int = PODS) -> None:
    with tempfile.TemporaryDirectory() as name, Cluster(binaries(), Path(name) / "cluster") as cluster:
        home = Path(name) / "control-plane"
        home.mkdir()
        with installed(cluster, home) as kuma:
            cluster.kubectl(
                "apply", "-f", "-", text="{apiVersion: kuma.io/v1alpha1, kind: Mesh, metadata: {name: default}}"
            )
            _measure(kuma, pods)


def _measure(kuma: Installed, pods: int) -> None:
    before, begun = _memory(kuma), time.monotonic()
    made = [_pod(number) for number in range(pods)]
    kuma.cluster.kubectl("create", "--validate=false", "-f", "-", text="\n---\n".join(map(json.dumps, made)))
    asyncio.run(_run_them(kuma.cluster, pods))
    until("all have Dataplanes", lambda: _dataplanes(kuma) == pods, kuma.processes, seconds=3600)
    took, more = time.monotonic() - begun, (_memory(kuma) - before) / 2**20
    print(f"{pods} Pods: {took:.0f} s until all have Dataplanes; {more:.0f} MiB more")
    start = _requests(kuma)
    time.sleep(_STEADY)
    print(f"requests in {_STEADY:.0f} s in which nothing changes: {dict(_requests(kuma) - start)}")
    _measure_changes(kuma, min(_CHANGED, pods))


def _measure_changes(kuma: Installed, pods: int) -> None:
    """Changes Pods in what their Dataplanes do not tell, and then in what they do: that shows the first to be over."""
    before, start = _written(kuma.cluster), _requests(kuma)
    asyncio.run(_change(kuma.cluster, pods, "", {"metadata": {"annotations": {"of-others": "1"}}}))
    ready = {"ready": True, "restartCount": 0, "image": "x", "imageID": "x"}
    statuses = [{"name": name, **ready} for name in ("app", "kuma-sidecar")]
    asyncio.run(_change(kuma.cluster, pods, "/status", {"status": {"containerStatuses": statuses}}))
    until("their Dataplanes are ready", lambda: _ready(kuma.cluster) == pods, kuma.processes, seconds=3600)
    time.sleep(_STEADY)  # anything that is written without need has been by then
    now = _written(kuma.cluster)
    writes = Counter(now[name] - before[name] for name in now)
    print(
        f"{pods} Pods with another annotation, and then ready: writes of Dataplanes, by how often each: {dict(writes)}"
    )
    print(f"requests meanwhile, those for the Lease among them: {dict(_requests(kuma) - start)}")


async def _change(cluster: Cluster, pods: int, part: str, patch: dict[str, object]) -> None:
    async with ApiClient(credentials.find(cluster.admin)) as client:
        for number in range(pods):
            await client.merge(f"/api/v1/namespaces/default/pods/web-{number}{part}", patch)


def _objects(cluster: Cluster) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = cluster.ask("GET", "/apis/kuma.io/v1alpha1/namespaces/default/dataplanes")["items"]
    return found


def _written(cluster: Cluster) -> dict[str, int]:
    """Returns how often the content of each Dataplane was written, which the API server counts."""
    return {one["metadata"]["name"]: int(one["metadata"]["generation"]) for one in _objects(cluster)}


def _ready(cluster: Cluster) -> int:
    inbounds = [one["spec"]["networking"]["inbound"] for one in _objects(cluster)]
    return sum(1 for found in inbounds if all(one.get("health", {}).get("ready") for one in found))


async def _run_them(cluster: Cluster, pods: int) -> None:
    """Says of all Pods what the kubelet would say."""
    async with ApiClient(credentials.find(cluster.admin)) as client:
        for number in range(pods):
            address = f"10.7.{number // 250}.{number % 250 + 1}"
            status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}
            await client.merge(f"/api/v1/namespaces/default/pods/web-{number}/status", {"status": status})


def _pod(number: int) -> dict[str, object]:
    containers = [{"name": "app", "image": "app"}, {"name": "kuma-sidecar", "image": "kuma-dp"}]
    metadata = {"name": f"web-{number}", "annotations": {"kuma.io/sidecar-injected": "true"}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": containers}}


def _dataplanes(kuma: Installed) -> int:
    found = kuma.get("/meshes/default/dataplanes?size=1")
    return int(found["total"]) if found else 0


def _requests(kuma: Installed) -> Counter[str]:
    found: Counter[str] = Counter()
    with urllib.request.urlopen(f"http://127.0.0.1:{kuma.ports['diagnostics']}/metrics") as answer:
        for method, count in _REQUESTS.findall(answer.read().decode()):
            found[method] += int(float(count))
    return found


def _memory(kuma: Installed) -> int:
    assert kuma.process is not None
    pages = Path(f"/proc/{kuma.process.pid}/statm").read_text().split()[1]
    return int(pages) * 4096


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
