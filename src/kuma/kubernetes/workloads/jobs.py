"""Pods whose work is done while their sidecar runs on: of Jobs, where the sidecar is a container like the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kuma.kubernetes.workloads.dataplanes import SIDECAR


def waits_for_sidecar(pod: Mapping[str, Any]) -> bool:
    """Tells whether only the sidecar keeps a Pod from its end: all other containers have ended, and none starts again.

    A native sidecar is ended by its node, and so is every sidecar of a Pod that is deleted.
    """
    policy = pod["spec"].get("restartPolicy", "Always")
    states = {one["name"]: one.get("state") or {} for one in (pod.get("status") or {}).get("containerStatuses") or ()}
    names = {container["name"] for container in pod["spec"].get("containers") or ()}
    others = names - {SIDECAR}
    return (
        policy != "Always"
        and SIDECAR in names
        and bool(others)
        and "running" in states.get(SIDECAR, {})
        and not pod["metadata"].get("deletionTimestamp")
        and all(_has_ended(states.get(name, {}), policy) for name in others)
    )


def _has_ended(state: Mapping[str, Any], policy: str) -> bool:
    ended = state.get("terminated")
    return ended is not None and (policy == "Never" or ended.get("exitCode") == 0)
