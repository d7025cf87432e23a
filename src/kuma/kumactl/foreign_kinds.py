"""Kinds of the original that our control plane has none of: their lists are empty, and looking at one finds nothing."""

from __future__ import annotations

from kuma.resources.naming import Naming

ALL = (
    Naming("Zone", "Global", "zones", "zone", "zones"),
    Naming("ZoneIngress", "Global", "zone-ingresses", "zone-ingress", "zone-ingresses"),
    Naming("ZoneEgress", "Global", "zoneegresses", "zoneegress", "zoneegresses"),
)
