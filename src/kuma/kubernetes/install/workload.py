"""The control plane as Pods, and how they are reached."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kuma.kubernetes.install.options import ADMISSION_NAME, ADMISSION_PORT, INJECTION_LABEL, NAME, SYSTEM_LABEL, Options

LABELS = {"app": NAME}
LEADER_LABEL = "kuma.io/leader"
"""Of the Pod of the control plane that serves proxies and the REST API. All of them judge changes."""
_USER = 5678
_WORK_DIR = "/var/lib/kuma"
_DIAGNOSTICS, _HTTP, _HTTPS, _DISCOVERY, _DATA_PLANE = 5680, 5681, 5682, 5677, 5678
_RESTRICTED = "pod-security.kubernetes.io/enforce"


def namespace(chosen: Options) -> dict[str, Any]:
    """The namespace, in which nothing runs with more rights than the control plane has, and nothing is injected."""
    labels = {SYSTEM_LABEL: "true", INJECTION_LABEL: "false", _RESTRICTED: "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": chosen.namespace, "labels": labels}}


def manifests(chosen: Options) -> list[dict[str, Any]]:
    """The Service, the Deployment, and what protects both."""
    return [_service(chosen), _admission_service(chosen), _deployment(chosen), _disruption(chosen), _network(chosen)]


def _service(chosen: Options) -> dict[str, Any]:
    ports = [
        _port("diagnostics", _DIAGNOSTICS), _port("http-api-server", _HTTP), _port("https-api-server", _HTTPS),
        _port("grpc-discovery", _DISCOVERY), _port("dp-server", _DATA_PLANE),
    ]  # fmt: skip
    spec = {"type": "ClusterIP", "selector": {**LABELS, LEADER_LABEL: "true"}, "ports": ports}
    return {"apiVersion": "v1", "kind": "Service", "metadata": _metadata(chosen), "spec": spec}


def _admission_service(chosen: Options) -> dict[str, Any]:
    ports = [_port("https-admission-server", 443, ADMISSION_PORT)]
    metadata = {**_metadata(chosen), "name": ADMISSION_NAME}
    spec = {"type": "ClusterIP", "selector": LABELS, "ports": ports}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}


def _port(name: str, port: int, target: int = 0) -> dict[str, Any]:
    return {"name": name, "port": port, "targetPort": target or port, "protocol": "TCP"}


def _deployment(chosen: Options) -> dict[str, Any]:
    template = {"metadata": {"labels": {**LABELS, INJECTION_LABEL: "false"}}, "spec": _pod(chosen)}
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    return {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": _metadata(chosen),
        "spec": {
            "replicas": chosen.replicas, "selector": {"matchLabels": LABELS}, "strategy": strategy,
            "template": template,
        },
    }  # fmt: skip


def _pod(chosen: Options) -> dict[str, Any]:
    apart = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": LABELS}}
    preferred = [{"weight": 100, "podAffinityTerm": apart}]
    return {
        "serviceAccountName": NAME,
        "securityContext": {
            "runAsNonRoot": True, "runAsUser": _USER, "runAsGroup": _USER, "fsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}},
        "containers": [_container(chosen)],
        "volumes": [{"name": "work", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}}],
    }  # fmt: skip


def _container(chosen: Options) -> dict[str, Any]:
    ports = [_DIAGNOSTICS, _HTTP, _HTTPS, ADMISSION_PORT, _DISCOVERY, _DATA_PLANE]
    return {
        "name": "control-plane",
        "image": chosen.image("kuma-cp"),
        "imagePullPolicy": "IfNotPresent",
        "args": ["run"],
        "env": [{"name": name, "value": value} for name, value in environment(chosen).items()]
        + [{"name": "KUMA_RUNTIME_KUBERNETES_POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        "ports": [{"containerPort": port} for port in ports],
        "livenessProbe": _probe("/healthy", failures=6),
        "readinessProbe": _probe("/ready", failures=3),
        "startupProbe": _probe("/healthy", failures=60),
        "resources": {"requests": {"cpu": "500m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "work", "mountPath": _WORK_DIR}],
    }


def environment(chosen: Options) -> Mapping[str, str]:
    """The settings of the control plane, which are the original's where there are such."""
    return {
        "KUMA_ENVIRONMENT": "kubernetes",
        "KUMA_STORE_TYPE": "kubernetes",
        "KUMA_STORE_KUBERNETES_SYSTEM_NAMESPACE": chosen.namespace,
        "KUMA_GENERAL_WORK_DIR": f"{_WORK_DIR}/control-plane",
        "KUMA_GENERAL_LOG_FORMAT": "json",
        "KUMA_API_SERVER_AUTHN_LOCALHOST_IS_ADMIN": "false",
        "KUMA_API_SERVER_HTTP_INTERFACE": "0.0.0.0",  # noqa: S104 - of the Pod
        "KUMA_API_SERVER_HTTPS_INTERFACE": "0.0.0.0",  # noqa: S104
        "KUMA_DP_SERVER_INTERFACE": "0.0.0.0",  # noqa: S104
        "KUMA_DIAGNOSTICS_SERVER_INTERFACE": "0.0.0.0",  # noqa: S104
        "KUMA_ACCESS_ANONYMOUS_READS": "true",
        "KUMA_RUNTIME_KUBERNETES_CONTROL_PLANE_SERVICE_NAME": NAME,
        "KUMA_RUNTIME_KUBERNETES_ADMISSION_SERVER_PORT": str(ADMISSION_PORT),
        "KUMA_RUNTIME_KUBERNETES_INJECTOR_SIDECAR_CONTAINER_IMAGE": chosen.image("kuma-dp"),
        "KUMA_INJECTOR_INIT_CONTAINER_IMAGE": chosen.image("kuma-init"),
        **chosen.environment,
    }


def _probe(path: str, *, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": _DIAGNOSTICS}, "timeoutSeconds": 3, "periodSeconds": 5,
        "failureThreshold": failures,
    }  # fmt: skip


def _disruption(chosen: Options) -> dict[str, Any]:
    spec = {"maxUnavailable": 1, "selector": {"matchLabels": LABELS}}  # one alone does not hold up a node
    return {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": _metadata(chosen), "spec": spec}


def _network(chosen: Options) -> dict[str, Any]:
    """Says who may call: proxies from everywhere; the API server, which has no labels; the REST API the namespace."""
    anybody = [_on(port) for port in (ADMISSION_PORT, _DISCOVERY, _DATA_PLANE, _DIAGNOSTICS)]
    ingress = [
        {"ports": anybody},
        {"ports": [_on(_HTTP), _on(_HTTPS)], "from": [{"podSelector": {}}]},
    ]
    spec = {"podSelector": {"matchLabels": LABELS}, "policyTypes": ["Ingress"], "ingress": ingress}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": _metadata(chosen), "spec": spec}


def _on(port: int) -> dict[str, Any]:
    return {"protocol": "TCP", "port": port}


def _metadata(chosen: Options) -> dict[str, Any]:
    return {"name": NAME, "namespace": chosen.namespace, "labels": LABELS}
