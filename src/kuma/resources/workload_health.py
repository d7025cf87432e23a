"""Health of the workloads behind inbounds with a probe: it stands in the Dataplane, as `state` and `health`.

The probe says it, not who writes the Dataplane: what was found out stays when it is written again, and callers are not
sent to a new inbound before its workload has answered.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kuma.resources.models.dataplane import DataplaneSpec, Health, Inbound, Networking, listen_address

Place = tuple[str, int]
"""Where the listener of an inbound is: its address and port."""


def place(networking: Networking, inbound: Inbound) -> Place:
    """Returns the place of an inbound, by which it is known when others come before it."""
    return listen_address(networking, inbound), inbound.port


def meant(spec: DataplaneSpec, stored: DataplaneSpec | None) -> DataplaneSpec:
    """Returns what is to be stored when a user or a proxy sends `spec`."""
    networking = spec.networking
    if networking is None or not any(inbound.service_probe for inbound in networking.inbound):
        return spec
    before = stored.networking if stored else None
    known = {place(before, inbound): inbound for inbound in before.inbound} if before else {}
    return _with(spec, {
        index: _as_before(inbound, known.get(place(networking, inbound)))
        for index, inbound in enumerate(networking.inbound)
        if inbound.service_probe is not None and inbound.state != "Ignored"
    })  # fmt: skip


def reported(spec: DataplaneSpec, answers: Mapping[Place, bool], served: DataplaneSpec) -> DataplaneSpec:
    """Returns the Dataplane once its proxy has said which workloads answer; the very same if it says so already.

    `served` is what the proxy was sent, with addresses in the place of host names.
    """
    found: dict[int, Inbound] = {}
    for index, (inbound, sent) in enumerate(zip(spec.net.inbound, served.net.inbound, strict=True)):
        is_answering = answers.get(place(served.net, sent))
        if inbound.service_probe is None or inbound.state == "Ignored" or is_answering is None:
            continue
        if is_answering != inbound.is_ready:
            found[index] = _said(inbound, is_ready=is_answering)
    return _with(spec, found) if found else spec


def _as_before(inbound: Inbound, before: Inbound | None) -> Inbound:
    if before is None or before.state == "Ignored":
        return _said(inbound, is_ready=False)
    return inbound.model_copy(update={"state": before.state, "health": before.health})


def _said(inbound: Inbound, *, is_ready: bool) -> Inbound:
    said: dict[str, Any] = {"state": "Ready" if is_ready else "NotReady", "health": Health(ready=is_ready)}
    return inbound.model_copy(update=said)


def _with(spec: DataplaneSpec, changed: Mapping[int, Inbound]) -> DataplaneSpec:
    networking = spec.net
    inbounds = tuple(changed.get(index, inbound) for index, inbound in enumerate(networking.inbound))
    return spec.model_copy(update={"networking": networking.model_copy(update={"inbound": inbounds})})
