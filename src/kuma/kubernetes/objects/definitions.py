"""CustomResourceDefinitions, made from the same models as everything else.

The schema tells `kubectl explain` which fields there are, and the API server what is a map and what a list. Everything
else, unknown fields too, is judged by the webhook, in the words of the REST API: the API server by itself would leave
unknown fields out without a word.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kuma.kubernetes.objects.forms import Form, Forms
from kuma.resources.codec import GROUP_VERSION

_GROUP, _VERSION = GROUP_VERSION.split("/")
_SHORT_NAMES = {"Mesh": ["m"], "Dataplane": ["dp"], "MeshTrafficPermission": ["mtp"]}
_OPEN = {"x-kubernetes-preserve-unknown-fields": True}
_SERVICE = r".spec.networking.inbound[{index}].tags['kuma\.io/service']"


def definitions(forms: Forms) -> list[dict[str, Any]]:
    """The definitions of all kinds."""
    return [_definition(form) for form in forms.custom]


def _definition(form: Form) -> dict[str, Any]:
    names: dict[str, Any] = {
        "kind": form.kind.name, "listKind": f"{form.kind.name}List", "plural": form.plural,
        "singular": form.kind.name.lower(), "categories": ["kuma"],
    }  # fmt: skip
    if form.kind.name in _SHORT_NAMES:
        names["shortNames"] = _SHORT_NAMES[form.kind.name]
    version: dict[str, Any] = {
        "name": _VERSION, "served": True, "storage": True, "schema": {"openAPIV3Schema": _schema(form)},
        "additionalPrinterColumns": _columns(form),
    }  # fmt: skip
    if form.kind.name == "Mesh":
        version["subresources"] = {"status": {}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{form.plural}.{_GROUP}"},
        "spec": {
            "group": _GROUP,
            "scope": "Namespaced" if form.namespaced else "Cluster",
            "names": names,
            "versions": [version],
        },
    }


def _columns(form: Form) -> list[dict[str, Any]]:
    return [*_COLUMNS.get(form.kind.name, ()), _column("Age", ".metadata.creationTimestamp", "date")]


def _column(name: str, path: str, type_: str = "string", priority: int = 0) -> dict[str, Any]:
    return {"name": name, "jsonPath": path, "type": type_, **({"priority": priority} if priority else {})}


_TARGET = (_column("TargetRef Kind", ".spec.targetRef.kind"), _column("TargetRef Name", ".spec.targetRef.name"))
_COLUMNS: Mapping[str, Sequence[dict[str, Any]]] = {
    "Mesh": (
        _column("Mode", ".status.mode"),
        _column("Backend", ".status.backend"),
        _column("State", ".status.state"),
    ),
    "MeshTransition": (
        _column("Goal", ".status.goal"),
        _column("Step", ".status.step"),
        _column("Complete", ".status.complete", "boolean"),
    ),
    "Dataplane": tuple(
        _column("kuma.io/service", _SERVICE.format(index=index), priority=int(index > 1)) for index in range(4)
    ),
    "MeshTrafficPermission": _TARGET,
}


def _schema(form: Form) -> dict[str, Any]:
    properties: dict[str, Any] = {form.content: _structural(form.kind.spec.model_json_schema())}
    if form.mesh == "field" or form.kind.name == "Mesh":  # one without a meaning, as in the original's
        properties["mesh"] = {"type": "string", "description": "The mesh that this belongs to."}
    if form.kind.name == "Mesh":
        properties["status"] = _structural(_STATUS)
    return {"type": "object", **_OPEN, "properties": properties}


_STATUS: Mapping[str, Any] = {
    "type": "object",
    "description": "Written by the control plane: how mutual TLS stands.",
    "properties": {
        "mode": {"type": "string"},
        "backend": {"type": "string"},
        "state": {"type": "string"},
    },
}


def _structural(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Makes of a JSON schema a structural one: without references, and with types of maps and lists only.

    What a model takes in more than one form, such as a number for a name, has no one type that could be told.
    """
    return _node(schema, schema.get("$defs") or {}, ())


def _node(node: Mapping[str, Any], known: Mapping[str, Any], above: tuple[str, ...]) -> dict[str, Any]:
    reference = str(node.get("$ref", "")).removeprefix("#/$defs/")
    if reference in above:
        return dict(_OPEN)
    if reference:
        return {**_node(known[reference], known, (*above, reference)), **_described(node)}
    choices = [choice for choice in node.get("anyOf", ()) if choice.get("type") != "null"]
    if len(choices) == 1:
        return {**_node(choices[0], known, above), **_described(node)}
    if node.get("type") == "array" and isinstance(node.get("items"), Mapping):
        return {"type": "array", "items": _node(node["items"], known, above), **_described(node)}
    if node.get("type") != "object":
        return {**_OPEN, **_described(node)}
    found = {"type": "object", **_OPEN, **_described(node)}
    properties = {name: _node(value, known, above) for name, value in (node.get("properties") or {}).items()}
    return {**found, "properties": properties} if properties else found


def _described(node: Mapping[str, Any]) -> dict[str, str]:
    return {"description": " ".join(node["description"].split())} if node.get("description") else {}
