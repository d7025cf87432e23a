"""The names of Envoy resources; tools that people have built around the original look for them."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Mapping

from kuma.base.values.urls import host_port
from kuma.resources import tags as tag_rules

ADMIN = "kuma:envoy:admin"
"""The listener in front of Envoy's administration, and the cluster behind it."""
ADMIN_IDENTITY, ADMIN_CA = f"{ADMIN}:identity", f"{ADMIN}:ca"
"""The secrets of that listener."""

METRICS, METRICS_CLUSTER = "kuma:metrics:prometheus", "kuma:metrics:hijacker"
"""The listener at which Prometheus reads a proxy's metrics, and the cluster behind it."""
ADS_CLUSTER = "ads_cluster"
"""The cluster that leads to the control plane, in every bootstrap; requests through it carry the proxy's token."""
NOWHERE = "kuma:nowhere"
"""No cluster has this name: a connection that should lead there is closed."""


def identity_secret(mesh: str) -> str:
    """Returns the secret with the proxy's own certificate and key."""
    return f"identity_cert:secret:{mesh}"


def trust_bundle_secret(mesh: str) -> str:
    """Returns the secret with the roots that the proxy trusts."""
    return f"mesh_ca:secret:{mesh}"


def inbound_listener(address: str, port: int) -> str:
    """Returns the listener of an inbound; also the name of its routes."""
    return f"inbound:{host_port(address, port)}"


def gate(address: str, port: int) -> str:
    """Returns the gate between an inbound and its workload; also the name of the cluster that leads to it."""
    return f"gate:{host_port(address, port)}"


def outbound_listener(address: str, port: int) -> str:
    """Returns the listener of an outbound; also the name of its routes."""
    return f"outbound:{host_port(address, port)}"


def local_cluster(address: str, port: int) -> str:
    """Returns the cluster of the workload itself. Two workloads on one port but two addresses keep apart."""
    return f"localhost:{port}" if ipaddress.ip_address(address).is_loopback else f"localhost:{host_port(address, port)}"


def service_cluster(tags: Mapping[str, str]) -> str:
    """Returns the cluster of a service, or of the part of it that has further tags."""
    service = tags[tag_rules.SERVICE]
    if len(tags) == 1:
        return service
    digest = hashlib.sha256("".join(f"{k},{v}" for k, v in sorted(tags.items())).encode()).hexdigest()
    return f"{service}-{digest[:16]}"


def inbound_passthrough(version: int) -> str:
    """Returns the listener of what others send to what is no inbound, by IP version; also the cluster behind it."""
    return f"inbound:passthrough:ipv{version}"


def outbound_passthrough(version: int) -> str:
    """Returns the listener of what a workload sends to what is not in the mesh; also the cluster behind it."""
    return f"outbound:passthrough:ipv{version}"


def direct(service: str) -> str:
    """Returns the cluster of a service whose proxies are called one by one, by their addresses; also its routes."""
    return f"direct:{service}"


def stat_name(name: str) -> str:
    """Returns a name as it stands in statistics."""
    return re.sub(r"[^A-Za-z0-9]", "_", name)
