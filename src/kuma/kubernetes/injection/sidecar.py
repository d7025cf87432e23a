"""The container of the sidecar."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from kuma.kubernetes.injection import choices, options
from kuma.kubernetes.injection.options import SIDECAR, UID, Ports, Sidecars
from kuma.kubernetes.injection.probes import Target

_REQUESTS = {"cpu": "50m", "memory": "128Mi", "ephemeral-storage": "50M"}
_LIMITS = {"cpu": "1000m", "memory": "512Mi", "ephemeral-storage": "1G"}
_OF_POD = {"INSTANCE_IP": "status.podIP", "POD_NAME": "metadata.name", "POD_NAMESPACE": "metadata.namespace"}
_START, _LIVE, _READY = 600, 12, 3
"""Failures of a probe in a row that count. A start waits for the control plane ten minutes before it is tried anew."""


def container(
    said: Mapping[str, str], mesh: str, ports: Ports, targets: Mapping[str, Target], chosen: Sidecars
) -> dict[str, Any]:
    """Returns the container; `targets` is what it asks for the kubelet.

    Raises:
        InvalidResource: an annotation has a value that it cannot have.
    """
    found = {
        "name": SIDECAR,
        "image": chosen.sidecar_image,
        "imagePullPolicy": "IfNotPresent",
        "args": ["run", f"--concurrency={choices.concurrency(said)}"],
        "env": _environment(said, mesh, ports, targets, chosen),
        "ports": [{"name": "kuma-ready", "containerPort": ports.readiness, "protocol": "TCP"}],
        "livenessProbe": _probe("/live", ports, periodSeconds=5, failureThreshold=_LIVE, initialDelaySeconds=60),
        "readinessProbe": _probe("/ready", ports, periodSeconds=5, failureThreshold=_READY),
        "resources": {"requests": _REQUESTS, "limits": _LIMITS},
        "securityContext": {
            "runAsUser": UID, "runAsGroup": UID, "runAsNonRoot": True, "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [
            {"name": options.TOKEN_VOLUME, "mountPath": options.TOKEN_DIRECTORY, "readOnly": True},
            {"name": options.TMP_OF_SIDECAR, "mountPath": "/tmp"},  # noqa: S108 - of the container
        ],
    }  # fmt: skip
    if chosen.native:
        found["restartPolicy"] = "Always"  # an init container that goes on: what comes after it waits until it serves
        found["startupProbe"] = _probe("/ready", ports, periodSeconds=1, failureThreshold=_START)
    return found


def _environment(
    said: Mapping[str, str], mesh: str, ports: Ports, targets: Mapping[str, Target], chosen: Sidecars
) -> list[dict[str, Any]]:
    """Returns the variables; those of the Pod first, because others refer to them."""
    values = {
        "KUMA_CONTROL_PLANE_URL": chosen.control_plane,
        "KUMA_CONTROL_PLANE_CA_CERT": chosen.ca_pem,
        "KUMA_DATAPLANE_MESH": mesh,
        "KUMA_DATAPLANE_NAME": "$(POD_NAME).$(POD_NAMESPACE)",
        "KUMA_DATAPLANE_DRAIN_TIME": choices.drain_time(said, chosen.drain_time),
        "KUMA_DATAPLANE_RUNTIME_TOKEN_PATH": f"{options.TOKEN_DIRECTORY}/{options.TOKEN_FILE}",
        "KUMA_READINESS_ADDRESS": "$(INSTANCE_IP)",
        "KUMA_READINESS_PORT": str(ports.readiness),
    }
    if level := choices.log_level(said):
        values["KUMA_DATAPLANE_RUNTIME_ENVOY_LOG_LEVEL"] = level
    if targets:
        asked = {"port": ports.probes, "targets": targets}
        values["KUMA_DATAPLANE_PROBES"] = json.dumps(asked, separators=(",", ":"), sort_keys=True)
    own = [{"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in _OF_POD.items()]
    given = values | choices.environment(said)
    return [*own, *({"name": name, "value": value} for name, value in given.items())]


def _probe(path: str, ports: Ports, **more: int) -> dict[str, Any]:
    return {"httpGet": {"path": path, "port": ports.readiness, "scheme": "HTTP"}, "timeoutSeconds": 3, **more}
