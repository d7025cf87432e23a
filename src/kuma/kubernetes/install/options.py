"""What can be chosen of an installation, and the names that follow from nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

NAME = "kuma-control-plane"
"""Of the Deployment, its Service, its ServiceAccount and its roles."""
ADMISSION_NAME = "kuma-admission"
"""Of the Service by which the API server reaches every control plane."""
ADMISSION_PORT = 5443
MUTATING = "kuma-admission-mutating-webhook-configuration"
VALIDATING = "kuma-validating-webhook-configuration"
SYSTEM_LABEL = "kuma.io/system-namespace"
INJECTION_LABEL = "kuma.io/sidecar-injection"
DEFAULT_REGISTRY = "docker.io/kuma-mtls"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Options of an installation."""

    namespace: str = "kuma-system"
    registry: str = DEFAULT_REGISTRY
    version: str
    replicas: int = 2
    environment: Mapping[str, str] = field(default_factory=dict)
    """Further settings of the control plane, by their variables."""

    @property
    def user(self) -> str:
        """The control plane as the API server knows it."""
        return account(self.namespace)

    def image(self, name: str) -> str:
        """The image of a program."""
        return f"{self.registry}/{name}:{self.version}"


def account(namespace: str) -> str:
    """The user that the control plane's ServiceAccount is."""
    return f"system:serviceaccount:{namespace}:{NAME}"
