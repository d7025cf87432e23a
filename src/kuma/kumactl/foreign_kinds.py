"""Kinds of the original that our control plane has none of: their lists are empty, and looking at one finds nothing."""

from __future__ import annotations

from kuma.resources.kinds import Kind
from kuma.resources.resource import Model


def _global(name: str, path: str, singular: str, plural: str) -> Kind:
    return Kind(name, "Global", path, singular, plural, Model)


ALL = (
    _global("Zone", "zones", "zone", "zones"),
    _global("ZoneIngress", "zone-ingresses", "zone-ingress", "zone-ingresses"),
    _global("ZoneEgress", "zoneegresses", "zoneegress", "zoneegresses"),
)
