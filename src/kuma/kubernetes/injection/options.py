"""What every sidecar of a cluster has alike, and the names that follow from nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

SIDECAR, INIT = "kuma-sidecar", "kuma-init"
"""Names of the containers, as in the original."""
UID = 5678
"""User of the sidecar, by which its own traffic is told from the workload's."""
INBOUND_PORT, OUTBOUND_PORT = 15006, 15001
"""Where traffic of the Pod is redirected to."""
ADMIN_PORT, READINESS_PORT, PROBES_PORT = 9901, 9902, 9000
TOKEN_VOLUME, TOKEN_DIRECTORY, TOKEN_FILE = "kuma-sidecar-token", "/var/run/secrets/kuma.io", "token"
TMP_OF_SIDECAR, TMP_OF_INIT = "kuma-sidecar-tmp", "kuma-init-tmp"
TOKEN_SECONDS = 3600
"""Lifetime of a token; the kubelet puts a new one there at four fifths of it."""
Object = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sidecars:
    """Choices of the control plane for all sidecars."""

    sidecar_image: str
    init_image: str
    control_plane: str
    """URL of the bootstrap server."""
    ca_pem: str
    """The CA by which it is verified."""
    audience: str
    """Whom the tokens of sidecars are for: this control plane, and no other one of the cluster."""
    native: bool
    """Whether the cluster has native sidecar containers (Kubernetes 1.29)."""
    drain_time: str = "30s"
    stop_seconds: int = 0
    """Seconds that workloads are left before they are told to end; 0 where Kubernetes cannot wait (before 1.30)."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Ports of a sidecar on the address of its Pod; `probes` is 0 if the workload's probes stay as they are."""

    admin: int
    readiness: int
    probes: int

    @property
    def called_by_kubelet(self) -> tuple[int, ...]:
        """Those that are called from outside the mesh, and are not redirected."""
        return tuple(port for port in (self.readiness, self.probes) if port)


def containers(pod: Object) -> list[Object]:
    """Returns the containers of a Pod, and its init containers."""
    return [*(pod["spec"].get("containers") or ()), *(pod["spec"].get("initContainers") or ())]


def declared_ports(found: Iterable[Object]) -> frozenset[int]:
    """Returns the ports that containers say they listen on."""
    return frozenset(int(port["containerPort"]) for one in found for port in one.get("ports") or ())
