"""Which versions of Kubernetes have native sidecar containers: of the API server, and of the nodes that run Pods."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

NATIVE_SIDECARS = 29
"""The minor version of Kubernetes 1 from which init containers may go on (KEP-753). Older nodes refuse such Pods."""
HOOKS_THAT_SLEEP = 30
"""The minor version from which a container can wait before it is told to end (KEP-3960). Older nodes do not wait."""
_SKEW = 3
"""Minor versions that a node may be older than the API server, by Kubernetes' version skew policy."""


def minor(version: Mapping[str, Any]) -> int:
    """Returns the minor version of an API server by what it answers at `/version`; 0 if it is not understood."""
    return _minor(f"v{version.get('major')}.{version.get('minor')}")


def may_have_older_nodes(server: int) -> bool:
    """Tells whether nodes of a cluster whose API server has native sidecars may be too old for them."""
    return NATIVE_SIDECARS <= server < NATIVE_SIDECARS + _SKEW


def without_native_sidecars(nodes: Iterable[Mapping[str, Any]]) -> list[str]:
    """Returns the nodes that are too old for native sidecars, with their versions. Those of Windows run none."""
    infos = {node["metadata"]["name"]: (node.get("status") or {}).get("nodeInfo") or {} for node in nodes}
    return [
        f"{name} ({info.get('kubeletVersion')})"
        for name, info in sorted(infos.items())
        if info.get("operatingSystem", "linux") == "linux" and _minor(info.get("kubeletVersion", "")) < NATIVE_SIDECARS
    ]


def _minor(version: str) -> int:
    """Returns the number of a version such as `v1.29.4-gke.1`, or `v1.29+`."""
    found = re.match(r"v1\.(\d+)", version)
    return int(found[1]) if found else 0
