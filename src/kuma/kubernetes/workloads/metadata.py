"""Labels and annotations of Pods, Services and namespaces, with the names and values of the original."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kuma.base.errors import InvalidResource

INJECTION = "kuma.io/sidecar-injection"
INJECTED = "kuma.io/sidecar-injected"
MESH = "kuma.io/mesh"
IGNORE = "kuma.io/ignore"
GATEWAY = "kuma.io/gateway"
ADMIN_PORT = "kuma.io/envoy-admin-port"
TRANSPARENT = "kuma.io/transparent-proxying"
INBOUND_PORT, OUTBOUND_PORT = f"{TRANSPARENT}-inbound-port", f"{TRANSPARENT}-outbound-port"
IP_FAMILY_MODE = f"{TRANSPARENT}-ip-family-mode"
REACHABLE_SERVICES = f"{TRANSPARENT}-reachable-services"
PROTOCOL = "{port}.service.kuma.io/protocol"
RESERVED = "kuma.io/"
_TRUE, _FALSE = ("enabled", "true", "yes"), ("disabled", "false", "no")


def of(found: Mapping[str, Any]) -> Mapping[str, str]:
    """The annotations of an object."""
    return found["metadata"].get("annotations") or {}


def labels(found: Mapping[str, Any]) -> Mapping[str, str]:
    """The labels of an object."""
    return found["metadata"].get("labels") or {}


def flag(values: Mapping[str, str], name: str) -> bool | None:
    """Tells whether something is enabled; None if nothing is said.

    Raises:
        InvalidResource: it is neither enabled nor disabled.
    """
    value = values.get(name)
    if value is None:
        return None
    if value not in (*_TRUE, *_FALSE):
        known = ", ".join((*_TRUE, *_FALSE))
        raise InvalidResource.of(name, f'annotation "{name}" has wrong value "{value}"; it is one of {known}')
    return value in _TRUE


def port(values: Mapping[str, str], name: str) -> int:
    """A port; 0 if nothing is said.

    Raises:
        InvalidResource: it is none.
    """
    text = values.get(name, "0")
    if not (text.isascii() and text.isdecimal()) or len(text) > 5 or int(text) > 65535:
        raise InvalidResource.of(name, f'annotation "{name}" has to be a port, got "{text[:100]}"')
    return int(text)


def is_injected(pod: Mapping[str, Any]) -> bool:
    """Tells whether a Pod has a sidecar."""
    return of(pod).get(INJECTED) in _TRUE


def mesh_of(pod: Mapping[str, Any], namespace: Mapping[str, Any] | None = None) -> str:
    """The mesh of a Pod: what it says itself, by label or annotation, then its namespace, then `default`."""
    for found in (pod, *([namespace] if namespace else [])):
        said = labels(found).get(MESH) or of(found).get(MESH)
        if said:
            return said
    return "default"
