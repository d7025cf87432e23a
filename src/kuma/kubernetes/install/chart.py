"""A Helm chart of what `kumactl install control-plane` prints, made from the same objects.

Values have the names of the original's chart. What is in a value stands in the objects as a mark, which becomes an
expression of Helm's language once they are YAML.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from kuma.kubernetes.install import access, admission, chart_values, manifests, workload
from kuma.kubernetes.install.options import NAME, Options

_NAMESPACE, _REGISTRY, _TAG = "release-namespace", "image-registry", "image-tag"
_MARKED = Options(namespace=_NAMESPACE, registry=_REGISTRY, version=_TAG)
_DEFAULT_TAG = ".Values.global.image.tag | default .Chart.AppVersion"
_IMAGES = {"kuma-cp": "controlPlane.image", "kuma-dp": "dataPlane.image", "kuma-init": "dataPlane.initImage"}
_EXPRESSIONS = {
    **{
        f"{_REGISTRY}/{name}:{_TAG}": f"{{{{ .Values.global.image.registry }}}}/{{{{ .Values.{value}.repository }}}}:"
        f"{{{{ .Values.{value}.tag | default ({_DEFAULT_TAG}) }}}}"
        for name, value in _IMAGES.items()
    },
    _NAMESPACE: "{{ .Release.Namespace }}",
    _REGISTRY: "{{ .Values.global.image.registry }}",
    _TAG: f"{{{{ {_DEFAULT_TAG} }}}}",
}
_MARK = re.compile(r"^(?P<indent> *)(?P<item>- )?(?:(?P<field>\w+): )?'?<(?P<how>[a-z]+) (?P<value>[\w.]*)>'?$", re.M)
_TLS = "/var/run/secrets/kuma.io/tls-cert"
_ENVIRONMENT = "kuma.environment"
_AUTOSCALING = "controlPlane.autoscaling"


def chart(version: str) -> dict[str, str]:
    """The files of the chart, by their paths in it."""
    described = {
        "apiVersion": "v2", "name": "kuma", "description": "Mutual TLS for services, compatible with Kuma.",
        "type": "application", "version": _semantic(version), "appVersion": version, "kubeVersion": ">=1.30.0-0",
    }  # fmt: skip
    return {
        "Chart.yaml": yaml.safe_dump(described, sort_keys=False),
        "values.yaml": yaml.safe_dump(chart_values.values(_MARKED), sort_keys=False),
        "values.schema.json": json.dumps(chart_values.schema(_MARKED), indent=2) + "\n",
        "crds/kuma.yaml": _yaml(manifests.crds(_MARKED)),
        "templates/_environment.tpl": _environment(),
        "templates/access.yaml": _template(map(_marked, access.manifests(_MARKED))),
        "templates/workload.yaml": _template(map(_marked, [*workload.manifests(_MARKED), _autoscaler()])),
        "templates/admission.yaml": _template(map(_marked, admission.manifests(_MARKED))),
        "templates/NOTES.txt": _notes(),
    }


def _marked(found: dict[str, Any]) -> dict[str, Any]:
    """Returns an object with marks where values stand."""
    if found["kind"] == "Deployment":
        made = _annotated(found, "controlPlane.deploymentAnnotations")
        return {**made, "spec": _marked_deployment(found["spec"])}
    if found["kind"] == "Service" and found["metadata"]["name"] == NAME:
        made = _annotated(found, "controlPlane.service.annotations")
        return {**made, "spec": {**found["spec"], "type": "<value controlPlane.service.type>"}}
    if found["kind"] == "ServiceAccount":
        return _annotated(found, "controlPlane.serviceAccountAnnotations")
    if found["kind"] == "PodDisruptionBudget":
        unavailable = "<value controlPlane.podDisruptionBudget.maxUnavailable>"
        return {**found, "spec": {**found["spec"], "maxUnavailable": unavailable}}
    if found["kind"] == "MutatingWebhookConfiguration":
        return {**found, "webhooks": [_marked_webhook(webhook) for webhook in found["webhooks"]]}
    return found


def _annotated(found: Mapping[str, Any], value: str) -> dict[str, Any]:
    return {**found, "metadata": {**found["metadata"], "annotations": f"<optional {value}>"}}


def _marked_webhook(webhook: dict[str, Any]) -> dict[str, Any]:
    if webhook["clientConfig"]["service"]["path"] != admission.INJECTION_PATH:
        return webhook
    return {**webhook, "failurePolicy": "<value controlPlane.injectorFailurePolicy>"}


def _autoscaler() -> dict[str, Any]:
    """Returns what sets the number of control planes instead of the Deployment, if that is chosen."""
    target = {"type": "Utilization", "averageUtilization": f"<value {_AUTOSCALING}.targetCPUUtilizationPercentage>"}
    return {
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": NAME, "namespace": _NAMESPACE, "labels": workload.LABELS},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": NAME},
            "minReplicas": f"<value {_AUTOSCALING}.minReplicas>",
            "maxReplicas": f"<value {_AUTOSCALING}.maxReplicas>",
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
        },
    }  # fmt: skip


def _marked_deployment(spec: Mapping[str, Any]) -> dict[str, Any]:
    template = spec["template"]
    (container,) = template["spec"]["containers"]
    named = [variable for variable in container["env"] if "value" not in variable]
    container = {
        **container,
        "imagePullPolicy": "<value controlPlane.image.pullPolicy>",
        "env": ["<environment >", "<secrets >", *named],
        "resources": "<yaml controlPlane.resources>",
        "volumeMounts": [*container["volumeMounts"], "<mount >"],
    }
    pod = {
        **template["spec"],
        "containers": [container],
        "volumes": [*template["spec"]["volumes"], "<volume >"],
        "affinity": "<optional controlPlane.affinity>",
        "nodeSelector": "<optional controlPlane.nodeSelector>",
        "tolerations": "<optional controlPlane.tolerations>",
        "topologySpreadConstraints": "<optional controlPlane.topologySpreadConstraints>",
        "priorityClassName": "<optional controlPlane.priorityClassName>",
        "terminationGracePeriodSeconds": "<optional controlPlane.terminationGracePeriodSeconds>",
        "imagePullSecrets": "<optional global.imagePullSecrets>",
    }
    metadata = {**template["metadata"], "annotations": "<optional controlPlane.podAnnotations>"}
    made = {**template, "metadata": metadata, "spec": pod}
    ready = "<optional controlPlane.minReadySeconds>"
    return {**spec, "replicas": "<replicas >", "minReadySeconds": ready, "template": made}


_ONLY_IF = {
    "PodDisruptionBudget": "controlPlane.podDisruptionBudget.enabled",
    "NetworkPolicy": "controlPlane.networkPolicy.enabled",
    "HorizontalPodAutoscaler": f"{_AUTOSCALING}.enabled",
}


def _template(objects: Iterable[dict[str, Any]]) -> str:
    documents = []
    for found in objects:
        text = _MARK.sub(_expression, _yaml([found]))
        condition = _ONLY_IF.get(found["kind"])
        documents.append(f"{{{{- if .Values.{condition} }}}}\n{text}{{{{- end }}}}\n" if condition else text)
    return _expressed("".join(documents))


def _expressed(text: str) -> str:
    text = re.sub(rf": {_NAMESPACE}$", ": {{ .Release.Namespace | quote }}", text, flags=re.M)
    for mark, expression in _EXPRESSIONS.items():
        text = text.replace(mark, expression)
    return text


def _yaml(objects: Sequence[dict[str, Any]]) -> str:
    return yaml.safe_dump_all(objects, sort_keys=False, explicit_start=True, width=10_000)


def _expression(mark: re.Match[str]) -> str:
    indent, field, how, value = mark["indent"], mark["field"], mark["how"], f".Values.{mark['value']}"
    if how == "value":
        return f"{indent}{field}: {{{{ {value} }}}}"
    if how == "yaml":
        return f"{indent}{field}: {{{{- toYaml {value} | nindent {len(indent) + 2} }}}}"
    if how == "optional":
        made = f"{indent}{field}: {{{{- toYaml . | nindent {len(indent) + 2} }}}}"
        return f"{indent}{{{{- with {value} }}}}\n{made}\n{indent}{{{{- end }}}}"
    return "\n".join(indent + line for line in _BLOCKS[how])


_BLOCKS = {
    "replicas": (
        f"{{{{- if not .Values.{_AUTOSCALING}.enabled }}}}",
        "replicas: {{ .Values.controlPlane.replicas }}",
        "{{- end }}",
    ),
    "secrets": (
        "{{- range .Values.controlPlane.secrets }}",
        "- name: {{ .Env | quote }}",
        "  valueFrom: {secretKeyRef: {name: {{ .Secret | quote }}, key: {{ .Key | quote }}}}",
        "{{- end }}",
    ),
    "environment": (
        f'{{{{- range $name, $value := merge (dict) .Values.controlPlane.envVars (include "{_ENVIRONMENT}" . '
        "| fromYaml) }}",
        "- name: {{ $name }}",
        "  value: {{ $value | quote }}",
        "{{- end }}",
    ),
    "mount": (
        "{{- if .Values.controlPlane.tls.general.secretName }}",
        "- name: tls",
        f"  mountPath: {_TLS}",
        "  readOnly: true",
        "{{- end }}",
    ),
    "volume": (
        "{{- with .Values.controlPlane.tls.general.secretName }}",
        "- name: tls",
        "  secret:",
        "    secretName: {{ . | quote }}",
        "{{- end }}",
    ),
}


def _environment() -> str:
    settings = _expressed(yaml.safe_dump(dict(workload.environment(_MARKED)), width=10_000))
    given = {"CERT_FILE": "tls.crt", "KEY_FILE": "tls.key", "CA_FILE": "ca.crt"}
    files = "".join(f"KUMA_GENERAL_TLS_{name}: {_TLS}/{file}\n" for name, file in given.items())
    return (
        f'{{{{- define "{_ENVIRONMENT}" -}}}}\n{settings}'
        "{{- with .Values.controlPlane.logLevel }}\nKUMA_GENERAL_LOG_LEVEL: {{ . | quote }}\n{{- end }}\n"
        '{{- if .Values.controlPlane.defaults.skipMeshCreation }}\nKUMA_DEFAULTS_SKIP_MESH_CREATION: "true"\n'
        "{{- end }}\n"
        f"{{{{- if .Values.controlPlane.tls.general.secretName }}}}\n{files}{{{{- end }}}}\n"
        "{{- end -}}\n"
    )


def _semantic(version: str) -> str:
    """Returns a version as Helm takes it (SemVer 2): what Python calls `1.2.dev3` is `1.2.0-dev3`."""
    found = re.match(r"(\d+)(?:\.(\d+))?(?:\.(\d+))?(.*)", version)
    if found is None:
        return "0.0.0"
    rest = re.sub(r"[^0-9A-Za-z]+", ".", found[4]).strip(".")
    return f"{found[1]}.{found[2] or 0}.{found[3] or 0}" + (f"-{rest}" if rest else "")


def _notes() -> str:
    warnings = "".join(
        f'{{{{- with .Values{f".{place}" if place else ""} }}}}{{{{- if hasKey . "{name}" }}}}\n'
        f"WARNING: the value {place}{'.' if place else ''}{name} has no effect here.\n{{{{- end }}}}{{{{- end }}}}\n"
        for place, name in chart_values.without_effect()
    )
    return f"""\
The control plane is being started in {{{{ .Release.Namespace }}}}: kubectl get pods -n {{{{ .Release.Namespace }}}}

Definitions of kinds are not renewed by `helm upgrade`. Before it:
  kumactl install crds | kubectl apply --server-side -f -
{{{{- if eq .Values.controlPlane.injectorFailurePolicy "Ignore" }}}}
WARNING: while no control plane is up, Pods are created without a sidecar, outside of the mesh.
{{{{- end }}}}
{warnings}"""
