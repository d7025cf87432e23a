"""Config: what the control plane keeps for itself beside the resources of its users."""

from __future__ import annotations

from kuma.resources.resource import Model


class ConfigSpec(Model):
    """One stored value."""

    config: str = ""
