"""Dataplanes as newer versions of the original write them: labels and references say which services they are and call.

There a service is a MeshService, made of Dataplanes with the same label; here it is what the tags of inbounds and
outbounds say. So the tags are added that say the same. What is written otherwise stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kuma.resources import tags as tag_rules

WORKLOAD = "kuma.io/workload"
SERVICE_LABELS = (tag_rules.SERVICE, WORKLOAD)
"""The labels of a Dataplane that name its service, the first one that is there."""
_DISPLAY_NAME = "kuma.io/display-name"
_SERVICES = ("MeshService", "MeshMultiZoneService")
"""The kinds of services within the mesh; all of them are in the one zone that there is."""


def with_tags(content: Mapping[str, Any], labels: Mapping[str, str]) -> Mapping[str, Any]:
    """Returns the content of a Dataplane with the tags that it says by other means; `content` may be anything."""
    networking = content.get("networking")
    if not isinstance(networking, Mapping):
        return content
    service = next((labels[name] for name in SERVICE_LABELS if labels.get(name)), None)
    found = dict(networking)
    if isinstance(inbounds := networking.get("inbound"), list):
        if sum(tag_rules.SERVICE not in (_tags(inbound) or {}) for inbound in inbounds) > 1:
            service = None  # callers would be sent to any of these ports: each has to be named
        found["inbound"] = [_inbound(inbound, service) for inbound in inbounds]
    if isinstance(outbounds := networking.get("outbound"), list):
        found["outbound"] = [_outbound(outbound) for outbound in outbounds]
    return {**content, "networking": found}


def _inbound(inbound: Any, service: str | None) -> Any:
    protocol = inbound.get("protocol") if isinstance(inbound, Mapping) else None
    return _with(inbound, {tag_rules.SERVICE: service, tag_rules.PROTOCOL: protocol or None})


def _outbound(outbound: Any) -> Any:
    reference = outbound.get("backendRef") if isinstance(outbound, Mapping) else None
    return _with(outbound, {tag_rules.SERVICE: called(reference)})


def _with(port: Any, tags: Mapping[str, Any]) -> Any:
    """Adds the tags that have a value and are not there; what is no map of tags is left for others to complain of."""
    written = _tags(port)
    if written is None:
        return port
    missing = {name: value for name, value in tags.items() if value is not None and name not in written}
    return {**port, "tags": {**written, **missing}} if missing else port


def _tags(port: Any) -> Mapping[Any, Any] | None:
    if not isinstance(port, Mapping):
        return None
    found = port.get("tags")
    return {} if found is None else found if isinstance(found, Mapping) else None


def called(reference: Any) -> str | None:
    """Returns the name of the service that a `backendRef` leads to; None if it leads to none within the mesh."""
    if not isinstance(reference, Mapping) or reference.get("kind", "MeshService") not in _SERVICES:
        return None
    labels = reference.get("labels")
    name = reference.get("name") or (labels.get(_DISPLAY_NAME) if isinstance(labels, Mapping) else None)
    return name if isinstance(name, str) and name else None
