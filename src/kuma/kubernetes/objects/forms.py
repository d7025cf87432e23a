"""Where the objects of each kind are in the API, and where in them the mesh and the content stand.

As in the original: the kinds of old are cluster-scoped and have `mesh` beside `spec`; those of today (`nested`) live in
a namespace and name their mesh by a label; Secrets are those of Kubernetes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from kuma.base.errors import InvalidResource
from kuma.resources import kinds
from kuma.resources.codec import GROUP_VERSION, MESH_LABEL, SECRET_TYPES
from kuma.resources.kinds import Kind
from kuma.resources.resource import Key

Object = Mapping[str, Any]
TLS_TYPE = "kubernetes.io/tls"
"""The type of Secrets as cert-manager writes them; one counts as a mesh's if the label says so."""
CONFIG_LABEL = "kuma.io/config"
"""Marks the ConfigMaps that the control plane keeps for itself."""
_TYPES = {kubernetes_type: kind for kind, kubernetes_type in SECRET_TYPES.items()}
_NAMESPACED = frozenset({"Dataplane", "DataplaneInsight", "ObservedTraffic"})
_UNDER_STATUS = frozenset({"DataplaneInsight", "MeshTransition", "ObservedTraffic"})
_DEFAULT_MESH = "default"


@dataclass(frozen=True, slots=True)
class Form:
    """The form of one kind. `group` is the API's path; `home` the namespace of all its objects, if there is one."""

    kind: Kind
    group: str
    plural: str
    namespaced: bool
    home: str
    mesh: Literal["field", "label", "name", "none"]
    content: Literal["spec", "status", "secret", "config"]

    @property
    def collection(self) -> str:
        """The path of all objects of the kind, in all namespaces that they may be in."""
        within = f"/namespaces/{self.home}" if self.home else ""
        return f"{self.group}{within}/{self.plural}"

    def place(self, key: Key) -> str:
        """The path of the objects that stand beside a resource, in its namespace.

        Raises:
            InvalidResource: the name of the resource has no namespace, although the kind lives in one.
        """
        if not self.namespaced or self.home:
            return self.collection
        return f"{self.group}/namespaces/{self.split(key.name)[1]}/{self.plural}"

    def path(self, key: Key) -> str:
        """The path of a resource; see `place`."""
        return f"{self.place(key)}/{self.split(key.name)[0]}"

    def split(self, name: str) -> tuple[str, str]:
        """The name and the namespace of an object; a name is `<name>.<namespace>` where each has its own."""
        if not self.namespaced or self.home:
            return name, self.home
        head, dot, namespace = name.rpartition(".")
        if not dot or not head or not namespace:
            raise InvalidResource.of(
                "name", f'name "{name}" must include namespace after the dot, ex. "name.namespace"'
            )
        return head, namespace

    def key(self, found: Object) -> Key | None:
        """The key of the resource in an object; None if the object is not of this kind, such as a foreign Secret."""
        metadata = found["metadata"]
        if self.content == "secret" and secret_kind(found) != self.kind.name:
            return None
        named = self.namespaced and not self.home
        name = f"{metadata['name']}.{metadata['namespace']}" if named else metadata["name"]
        return Key(self.kind.name, self._mesh(found), name)

    def _mesh(self, found: Object) -> str:
        if self.mesh == "label":
            return str((found["metadata"].get("labels") or {}).get(MESH_LABEL) or _DEFAULT_MESH)
        if self.mesh == "field":
            return str(found.get("mesh") or _DEFAULT_MESH)
        return str(found["metadata"]["name"]) if self.mesh == "name" else ""


def secret_kind(found: Object) -> str | None:
    """The kind of resource that a Secret of Kubernetes is; None if it is none of ours."""
    type_, labels = found.get("type"), found["metadata"].get("labels") or {}
    if type_ == TLS_TYPE:
        return kinds.SECRET.name if MESH_LABEL in labels else None
    return _TYPES.get(str(type_))


class Forms:
    """The forms of all kinds, for a control plane that keeps what is its own in the namespace `system`."""

    def __init__(self, system: str) -> None:
        self.system = system
        self._forms = {kind.name: _form(kind, system) for kind in (*kinds.ALL, kinds.CONFIG, kinds.OBSERVED_TRAFFIC)}
        self.custom = tuple(form for form in self._forms.values() if form.content in ("spec", "status"))
        """Those that the API server has to be told of first, by a definition."""

    def of(self, kind: str) -> Form:
        """The form of a kind."""
        return self._forms[kind]

    def of_object(self, found: Object) -> Form | None:
        """The form of an object; None if it is of no kind of ours."""
        if found.get("apiVersion") == "v1" and found.get("kind") == "Secret":
            kind = secret_kind(found)
            return self._forms[kind] if kind else None
        form = self._forms.get(str(found.get("kind")))
        return form if form is not None and found.get("apiVersion") == GROUP_VERSION else None


def _form(kind: Kind, system: str) -> Form:
    if kind.name in SECRET_TYPES:
        mesh: Literal["label", "none"] = "label" if kind.in_mesh else "none"
        return Form(kind, "/api/v1", "secrets", True, system, mesh, "secret")
    if kind is kinds.CONFIG:
        return Form(kind, "/api/v1", "configmaps", True, system, "none", "config")
    namespaced = kind.nested or kind.name in _NAMESPACED
    content: Literal["spec", "status"] = "status" if kind.name in _UNDER_STATUS else "spec"
    return Form(kind, f"/apis/{GROUP_VERSION}", _plural(kind), namespaced, "", _place_of_mesh(kind), content)


def _place_of_mesh(kind: Kind) -> Literal["field", "label", "name", "none"]:
    if not kind.in_mesh:
        return "none"
    if kind is kinds.MESH_TRANSITION:
        return "name"
    return "label" if kind.nested else "field"


def _plural(kind: Kind) -> str:
    """Returns the plural in the API: the one of the REST API without hyphens, if it is there, too."""
    return kind.path.replace("-", "") or f"{kind.name.lower()}s"
