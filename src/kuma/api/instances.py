"""Control planes as they are shown."""

from __future__ import annotations

from typing import Any

from kuma.api.context import ApiContext
from kuma.coordination.coordination import Instance
from kuma.resources import codec


def all_shown(context: ApiContext) -> list[dict[str, Any]]:
    """Formats all control planes over this store."""
    return [shown(instance, context.instance) for instance in context.instances()]


def shown(instance: Instance, own: str) -> dict[str, Any]:
    """Formats a control plane; `own` is the name of the one that answers, by whose clock the difference is told."""
    spec = instance.spec
    return {
        "name": instance.name,
        "answers": instance.name == own,
        "leader": instance.leads,
        "address": spec.address,
        "version": spec.version,
        "since": codec.rfc3339(spec.started),
        "proxies": spec.proxies,
        "clockDifferenceSeconds": round((spec.written - instance.received).total_seconds(), 1),
    }
