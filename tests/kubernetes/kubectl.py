"""What tests do with kubectl as people do, and what they read of a control plane on Kubernetes."""

from __future__ import annotations

import base64
import json
import urllib.request
from typing import Any

import yaml

from demo.processes import PATIENCE
from tools.kubernetes.cluster import Cluster
from tools.kubernetes.installed import NAMESPACE, Installed


def mesh(name: str, **mtls: Any) -> str:
    spec = {"mtls": mtls} if mtls else {}
    return yaml.safe_dump(
        {"apiVersion": "kuma.io/v1alpha1", "kind": "Mesh", "metadata": {"name": name}, "spec": spec}
    )  # fmt: skip


def builtin(name: str = "ca-1", **more: Any) -> dict[str, Any]:
    return {"name": name, "type": "builtin", **more}


def secret(name: str, data: bytes, mesh: str = "default") -> str:
    metadata = {"name": name, "namespace": NAMESPACE, "labels": {"kuma.io/mesh": mesh}}
    content = {"value": base64.b64encode(data).decode()}
    found = {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "system.kuma.io/secret",
        "metadata": metadata,
        "data": content,
    }
    return yaml.safe_dump(found)


def apply(cluster: Cluster, text: str) -> str:
    """Applies a file; returns what kubectl tells beside what it did."""
    return cluster.kubectl("apply", "-f", "-", text=text).stderr


def refused(cluster: Cluster, text: str) -> str:
    done = cluster.kubectl("apply", "-f", "-", text=text, check=False)
    assert done.returncode, done.stdout
    return done.stderr


def shown(cluster: Cluster, kind: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(cluster.kubectl("get", kind, name, "-n", NAMESPACE, "-o", "json").stdout)
    return found


def exists(cluster: Cluster, kind: str, name: str) -> bool:
    return not cluster.kubectl("get", kind, name, "-n", NAMESPACE, check=False).returncode


def metrics_of(kuma: Installed) -> str:
    url = f"http://127.0.0.1:{kuma.ports['diagnostics']}/metrics"
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        return str(answer.read().decode())
