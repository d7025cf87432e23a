"""What the containers of a workload do before they are told to end: they wait until nobody is sent to them any more.

A Pod that is deleted is told to end at the moment in which callers begin to hear of it. A workload that obeys at once
fails the calls that are on their way, and there is nobody in its place: its sidecar serves, but has nothing to call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kuma.kubernetes.injection.options import Object

_GRACE = 30
"""Seconds that a Pod has to end, if it does not say (Kubernetes: `terminationGracePeriodSeconds`)."""


def waiting(pod: Object, containers: Sequence[Object], seconds: int) -> list[dict[str, Any]]:
    """Returns the containers, each with a hook that sleeps before it is told to end, unless it has one of its own.

    They sleep for these `seconds`, and for no more than half of the time that the Pod has to end. Pods that are not
    started again after they have ended, such as those of Jobs, are left as they are: they end by themselves.
    """
    spec = pod["spec"]
    grace = spec.get("terminationGracePeriodSeconds")
    seconds = min(seconds, (_GRACE if grace is None else int(grace)) // 2)
    if seconds < 1 or spec.get("restartPolicy", "Always") != "Always":
        return [dict(one) for one in containers]
    return [_waiting(one, seconds) for one in containers]


def _waiting(container: Object, seconds: int) -> dict[str, Any]:
    lifecycle = container.get("lifecycle") or {}
    return {**container, "lifecycle": {"preStop": {"sleep": {"seconds": seconds}}, **lifecycle}}
