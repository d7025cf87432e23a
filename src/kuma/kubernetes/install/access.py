"""The control plane's ServiceAccount, and what it may do: no more than what it does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kuma.kubernetes.install import options
from kuma.kubernetes.install.options import NAME, Options
from kuma.kubernetes.objects.forms import Forms

_API = "rbac.authorization.k8s.io/v1"
_READ = ["get", "list", "watch"]
_ALL = [*_READ, "create", "update", "patch", "delete"]


def manifests(chosen: Options) -> list[dict[str, Any]]:
    """The account and its roles."""
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": NAME, "namespace": chosen.namespace}},
        _role("ClusterRole", chosen, _everywhere(chosen)),
        _binding("ClusterRole", chosen),
        _role("Role", chosen, _at_home()),
        _binding("Role", chosen),
    ]


def _everywhere(chosen: Options) -> list[dict[str, Any]]:
    own = [form.plural for form in Forms(chosen.namespace).custom]
    configurations = {"resourceNames": [options.MUTATING, options.VALIDATING]}
    return [
        _rule("kuma.io", own, _ALL),
        _rule("kuma.io", ["meshes/status"], ["get", "update", "patch"]),
        _rule("kuma.io", ["meshes/finalizers", "dataplanes/finalizers"], ["update"]),
        _rule("", ["pods", "services"], _READ),
        _rule("", ["namespaces"], ["get"]),
        _rule("", ["nodes"], ["list"]),
        _rule("", ["pods/finalizers"], ["update"]),
        _rule("discovery.k8s.io", ["endpointslices"], _READ),
        _rule("apps", ["replicasets"], ["get"]),
        _rule("batch", ["jobs"], ["get"]),
        _rule("", ["events"], ["create"]),
        _rule("authentication.k8s.io", ["tokenreviews"], ["create"]),
        _rule(
            "admissionregistration.k8s.io",
            ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"],
            [*_READ, "patch"],
        )
        | configurations,
        _rule("apiextensions.k8s.io", ["customresourcedefinitions"], ["get"])
        | {"resourceNames": [f"{plural}.kuma.io" for plural in own]},
    ]


def _at_home() -> list[dict[str, Any]]:
    """In the namespace of the control plane only: nobody's Secrets elsewhere are its business."""
    return [
        _rule("", ["secrets", "configmaps"], _ALL),
        _rule("coordination.k8s.io", ["leases"], ["get", "create", "update"]),
        _rule("", ["pods"], ["patch"]),
    ]


def _rule(group: str, resources: Sequence[str], verbs: Sequence[str]) -> dict[str, Any]:
    return {"apiGroups": [group], "resources": list(resources), "verbs": list(verbs)}


def _role(kind: str, chosen: Options, rules: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "apiVersion": _API,
        "kind": kind,
        "metadata": _named(kind, chosen),
        "rules": rules,
    }


def _binding(kind: str, chosen: Options) -> dict[str, Any]:
    return {
        "apiVersion": _API,
        "kind": f"{kind}Binding",
        "metadata": _named(kind, chosen),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": NAME},
        "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": chosen.namespace}],
    }


def _named(kind: str, chosen: Options) -> dict[str, Any]:
    return {"name": NAME, **({"namespace": chosen.namespace} if kind == "Role" else {})}
