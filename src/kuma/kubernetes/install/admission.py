"""The webhooks. They fail closed: what cannot be judged could take mutual TLS away.

What the control plane itself writes is not sent to it: it has to be able to start. Nor is what Kubernetes deletes with
its owner or its namespace: no control plane may be left by then. The CA by which the API server knows the control plane
is entered by the control plane, which makes it, so that the same files can be applied again and again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kuma.kubernetes.install.options import ADMISSION_NAME, INJECTION_LABEL, MUTATING, VALIDATING, Options
from kuma.kubernetes.objects.forms import Forms
from kuma.resources.codec import MESH_LABEL

SERVICE = ADMISSION_NAME
DEFAULTS_PATH = "/default-kuma-io-v1alpha1-mesh"
VALIDATION_PATH = "/validate-kuma-io-v1alpha1"
SECRETS_PATH = "/validate-v1-secret"
INJECTION_PATH = "/inject-sidecar"
CLEANERS = (
    "system:serviceaccount:kube-system:generic-garbage-collector",
    "system:serviceaccount:kube-system:namespace-controller",
)
"""Users of Kubernetes itself, which delete what has lost its owner or its namespace."""
_NAME_OF_NAMESPACE = "kubernetes.io/metadata.name"
_IS_OURS = (
    '[object, oldObject].exists(o, o != null && (o.type.startsWith("system.kuma.io/") || '
    f'(o.type == "kubernetes.io/tls" && has(o.metadata.labels) && "{MESH_LABEL}" in o.metadata.labels)))'
)


def manifests(chosen: Options) -> list[dict[str, Any]]:
    """The configurations of all webhooks."""
    return [
        _configuration("MutatingWebhookConfiguration", MUTATING, [_defaults(chosen), *_injectors(chosen)]),
        _configuration("ValidatingWebhookConfiguration", VALIDATING, [_validation(chosen), _secrets(chosen)]),
    ]


def _configuration(kind: str, name: str, webhooks: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": kind,
        "metadata": {"name": name},
        "webhooks": webhooks,
    }


def _defaults(chosen: Options) -> dict[str, Any]:
    plurals = [form.plural for form in _declared(chosen) if form.kind.in_mesh]
    rule = _rule("kuma.io", "v1alpha1", plurals, ("CREATE", "UPDATE"))
    return _webhook(chosen, "mesh.defaulter.kuma-admission.kuma.io", DEFAULTS_PATH, rule)


def _validation(chosen: Options) -> dict[str, Any]:
    plurals = [form.plural for form in Forms(chosen.namespace).custom]
    rule = _rule("kuma.io", "v1alpha1", plurals, ("CREATE", "UPDATE", "DELETE"))
    return _webhook(chosen, "validator.kuma-admission.kuma.io", VALIDATION_PATH, rule, "NoneOnDryRun")


def _secrets(chosen: Options) -> dict[str, Any]:
    rule = _rule("", "v1", ["secrets"], ("CREATE", "UPDATE", "DELETE"))
    found = _webhook(chosen, "secret.validator.kuma-admission.kuma.io", SECRETS_PATH, rule, "NoneOnDryRun")
    at_home = {"key": _NAME_OF_NAMESPACE, "operator": "In", "values": [chosen.namespace]}
    found["namespaceSelector"] = {"matchExpressions": [at_home]}
    found["matchConditions"].append({"name": "is-of-kuma", "expression": _IS_OURS})
    return found


def _injectors(chosen: Options) -> list[dict[str, Any]]:
    """Returns the webhooks for Pods of labelled namespaces, and for labelled Pods of others.

    Whatever the label says but that there is to be no sidecar is asked about: a value that is mistyped is refused, and
    does not leave a Pod out of the mesh. Of all other Pods nothing is asked.
    """
    rule = _rule("", "v1", ["pods"], ("CREATE",)) | {"scope": "Namespaced"}
    elsewhere = {"key": _NAME_OF_NAMESPACE, "operator": "NotIn", "values": ["kube-system", chosen.namespace]}
    asked = [
        {"key": INJECTION_LABEL, "operator": "Exists"},
        {"key": INJECTION_LABEL, "operator": "NotIn", "values": ["disabled", "false", "no"]},
    ]
    of_namespaces = _webhook(chosen, "namespace-kuma-injector.kuma.io", INJECTION_PATH, rule)
    of_namespaces |= {"namespaceSelector": {"matchExpressions": [elsewhere, *asked]}}
    of_pods = _webhook(chosen, "pods-kuma-injector.kuma.io", INJECTION_PATH, rule)
    of_pods |= {
        "namespaceSelector": {"matchExpressions": [elsewhere]},
        "objectSelector": {"matchExpressions": asked},
    }
    for webhook in (of_namespaces, of_pods):
        del webhook["matchConditions"]  # whoever creates the Pod
    return [of_namespaces, of_pods]


def _declared(chosen: Options) -> list[Any]:
    return [form for form in Forms(chosen.namespace).custom if not form.kind.read_only]


def _rule(group: str, version: str, resources: Sequence[str], operations: Sequence[str]) -> dict[str, Any]:
    return {
        "apiGroups": [group],
        "apiVersions": [version],
        "operations": list(operations),
        "resources": list(resources),
        "scope": "*",
    }


def _webhook(chosen: Options, name: str, path: str, rule: dict[str, Any], side_effects: str = "None") -> dict[str, Any]:
    service = {"name": ADMISSION_NAME, "namespace": chosen.namespace, "path": path, "port": 443}
    users = ", ".join(f'"{user}"' for user in (chosen.user, *CLEANERS))
    return {
        "name": name,
        "admissionReviewVersions": ["v1"],
        "sideEffects": side_effects,
        "failurePolicy": "Fail",
        "matchPolicy": "Equivalent",
        "timeoutSeconds": 10,
        "clientConfig": {"service": service},
        "rules": [rule],
        "matchConditions": [
            {"name": "is-of-a-user", "expression": f"!(request.userInfo.username in [{users}])"},
        ],
    }
