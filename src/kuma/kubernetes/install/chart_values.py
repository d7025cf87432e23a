"""The values of the Helm chart, which are the original's, and what each may be.

Helm refuses a value that nobody knows, and takes those of the original that have no effect here: it says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kuma.kubernetes.install import workload
from kuma.kubernetes.install.options import DEFAULT_REGISTRY, Options

_WITHOUT_EFFECT: Mapping[str, str] = {
    "": "patchSystemNamespace installCrdsOnUpgrade noHelmHooks namespaceAllowList skipRBAC restartOnSecretChange cni "
    "ingress egress kumactl kubectl hooks transparentProxy experimental postgres plugins legacy nameOverride",
    "controlPlane": "environment extraLabels logOutputPath mode zone kdsGlobalAddress ingress serviceMonitor "
    "globalZoneSyncService automountServiceAccountToken lifecycle extraConfigMaps extraSecrets webhooks hostNetwork "
    "admissionServerPort podSecurityContext containerSecurityContext supportGatewaySecretsInAllNamespaces dns "
    "skipClusterRoleCreation config envVarEntries",
    "controlPlane.defaults": "createMeshRoutingResources",
    "controlPlane.service": "apiServer enabled name",
    "controlPlane.tls": "apiServer kdsGlobalServer kdsZoneClient",
    "controlPlane.tls.general": "caSecretName caBundle",
    "controlPlane.autoscaling": "metrics",
    "dataPlane": "dnsLogging",
    "dataPlane.image": "pullPolicy",
    "dataPlane.initImage": "pullPolicy",
}
"""Values of the original that are taken and do nothing, by where they are."""
_ONE_OF: Mapping[str, list[str]] = {
    "controlPlane.injectorFailurePolicy": ["Fail", "Ignore"],
    "controlPlane.service.type": ["ClusterIP", "NodePort", "LoadBalancer"],
    "controlPlane.image.pullPolicy": ["Always", "IfNotPresent", "Never"],
}
_FREE = frozenset({"controlPlane.resources", "controlPlane.affinity"})
"""Objects of Kubernetes, which checks them."""
_SECRETS: Mapping[str, Any] = {
    "type": ["object", "null"],
    "additionalProperties": {
        "type": "object",
        "properties": {name: {"type": "string", "minLength": 1} for name in ("Env", "Secret", "Key")},
        "required": ["Env", "Secret", "Key"],
        "additionalProperties": False,
    },
}


def values(chosen: Options) -> dict[str, Any]:
    """The values that hold if nothing else is said."""
    found = {one["kind"]: one for one in reversed(workload.manifests(chosen))}
    pod = found["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    disrupted = found["PodDisruptionBudget"]["spec"]["maxUnavailable"]
    control_plane = {
        "image": {"repository": "kuma-cp", "tag": "", "pullPolicy": container["imagePullPolicy"]},
        "replicas": chosen.replicas,
        "minReadySeconds": 0,
        "autoscaling": {
            "enabled": False, "minReplicas": 2, "maxReplicas": 5, "targetCPUUtilizationPercentage": 80,
        },
        "resources": container["resources"],
        "envVars": {},
        "secrets": {},
        "logLevel": "",
        "injectorFailurePolicy": "Fail",
        "defaults": {"skipMeshCreation": False},
        "service": {"type": found["Service"]["spec"]["type"], "annotations": {}},
        "serviceAccountAnnotations": {},
        "tls": {"general": {"secretName": ""}},
        "podDisruptionBudget": {"enabled": True, "maxUnavailable": disrupted},
        "networkPolicy": {"enabled": True},
        "deploymentAnnotations": {},
        "podAnnotations": {},
        "nodeSelector": {},
        "tolerations": [],
        "affinity": pod["affinity"],
        "topologySpreadConstraints": [],
        "priorityClassName": "",
        "terminationGracePeriodSeconds": 0,
    }  # fmt: skip
    images = {"registry": DEFAULT_REGISTRY, "tag": ""}
    sidecars = {
        name: {"repository": f"kuma-{end}", "tag": ""} for name, end in (("image", "dp"), ("initImage", "init"))
    }
    return {
        "global": {"image": images, "imagePullSecrets": []},
        "controlPlane": control_plane,
        "dataPlane": sidecars,
    }


def schema(chosen: Options) -> dict[str, Any]:
    """Returns what values may be (JSON Schema, draft 7), for Helm to check: a slip in a name is an error."""
    found = _schema("", values(chosen))
    found["properties"]["global"]["additionalProperties"] = True  # they are those of all charts of a release
    return {"$schema": "http://json-schema.org/draft-07/schema#", **found}


def without_effect() -> list[tuple[str, str]]:
    """Values that are taken and have no effect: the place of each, and its name."""
    return [(place, name) for place, names in _WITHOUT_EFFECT.items() for name in names.split()]


def _schema(path: str, value: Any) -> dict[str, Any]:
    if path == "controlPlane.secrets":
        return dict(_SECRETS)
    if path in _ONE_OF:
        return {"enum": _ONE_OF[path]}
    if isinstance(value, bool):
        return {"type": "boolean"}
    if isinstance(value, int):
        return {"type": "integer", "minimum": 0}
    if isinstance(value, str):  # Helm makes an integer of a tag like 12; one like 1.10 loses digits if it is no string
        return {"type": ["string", "null", *(["integer"] if path.endswith(".tag") else [])]}
    if isinstance(value, list):
        return {"type": ["array", "null"]}
    if not value or path in _FREE:
        return {"type": ["object", "null"]}
    known = {name: _schema(f"{path}.{name}".lstrip("."), one) for name, one in value.items()}
    others: dict[str, Any] = {name: {} for name in _WITHOUT_EFFECT.get(path, "").split()}
    return {"type": "object", "properties": {**known, **others}, "additionalProperties": False}
