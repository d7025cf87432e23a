"""Makes resources of objects and objects of resources. What an object holds beyond the resource stays in it."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from kuma.base.errors import StoreCorrupt
from kuma.kubernetes.objects.forms import CONFIG_LABEL, TLS_TYPE, Form, Object
from kuma.resources.codec import GROUP_VERSION, MESH_LABEL, SECRET_TYPES
from kuma.resources.resource import NEVER, Key, Resource

_PEM_PARTS = ("tls.crt", "ca.crt", "tls.key")


def decode(form: Form, found: Object) -> Resource[Any] | None:
    """The resource in an object; None if it is not of this kind.

    Raises:
        StoreCorrupt: its content is not understood. It was written past admission, or by another version.
    """
    key = form.key(found)
    if key is None:
        return None
    metadata = found["metadata"]
    try:
        return Resource(
            key,
            form.kind.spec.model_validate(_spec(form, found)),
            labels=_labels(form, metadata),
            creation_time=_time(metadata.get("creationTimestamp")),
            modification_time=_modified(metadata),
            version=int(metadata.get("resourceVersion") or 0),
        )
    except Exception:  # anything may stand there; and the text of the error may hold what is to stay secret
        raise StoreCorrupt(f"{key} is stored in a form that this version does not understand") from None


def encode(form: Form, resource: Resource[Any], stored: Object | None = None) -> dict[str, Any]:
    """The object of a resource, to replace the `stored` one if there is one: its own metadata stays."""
    name, namespace = form.split(resource.name)
    metadata: dict[str, Any] = dict(stored["metadata"]) if stored else {"name": name}
    metadata.pop("managedFields", None)
    if namespace:
        metadata["namespace"] = namespace
    metadata["labels"] = _object_labels(form, resource)
    if resource.version:
        metadata["resourceVersion"] = str(resource.version)
    base = {name: value for name, value in (stored or {}).items() if name not in ("metadata", "mesh")}
    return {**base, **_body(form, resource.key), **_written(form, resource), "metadata": metadata}


def _body(form: Form, key: Key) -> dict[str, Any]:
    if form.content == "secret":
        return {"apiVersion": "v1", "kind": "Secret", "type": SECRET_TYPES[key.kind]}
    if form.content == "config":
        return {"apiVersion": "v1", "kind": "ConfigMap"}
    return {"apiVersion": GROUP_VERSION, "kind": key.kind, **({"mesh": key.mesh} if form.mesh == "field" else {})}


def _written(form: Form, resource: Resource[Any]) -> dict[str, Any]:
    spec = resource.spec.to_wire()
    if form.content == "secret":
        return {"data": {"value": spec.get("data", "")}}
    if form.content == "config":
        return {"data": {"config": spec.get("config", "")}}
    return {form.content: spec}


def _object_labels(form: Form, resource: Resource[Any]) -> dict[str, str]:
    labels = dict(resource.labels)
    if form.mesh == "label":
        labels[MESH_LABEL] = resource.mesh
    return labels | {CONFIG_LABEL: "true"} if form.content == "config" else labels


def _labels(form: Form, metadata: Mapping[str, Any]) -> dict[str, str]:
    """Returns the labels of the resource: without those that are its mesh, or that it is the control plane's own."""
    said = {MESH_LABEL} if form.mesh == "label" else {CONFIG_LABEL}
    return {name: value for name, value in (metadata.get("labels") or {}).items() if name not in said}


def _spec(form: Form, found: Object) -> Mapping[str, Any]:
    if form.content == "config":
        return {"config": (found.get("data") or {}).get("config", "")}
    if form.content != "secret":
        return found.get(form.content) or {}
    data = found.get("data") or {}
    if found.get("type") == TLS_TYPE:
        return {"data": _pem(data)}
    return {"data": data.get("value") or ""}


def _pem(data: Mapping[str, str]) -> bytes:
    """Returns what is in a Secret of TLS as one text: the chain, the CA above it if that is not in it, and the key."""
    try:
        parts = {name: base64.b64decode(data.get(name) or "", validate=True).strip() for name in _PEM_PARTS}
    except binascii.Error as error:
        raise ValueError("no base64") from error
    if parts["ca.crt"] and parts["ca.crt"] in parts["tls.crt"]:
        parts["ca.crt"] = b""
    return b"".join(part + b"\n" for part in parts.values() if part)


def _modified(metadata: Mapping[str, Any]) -> datetime:
    """Returns when the object was last written, as the API server notes it by writer; its status does not count."""
    writes = metadata.get("managedFields") or ()
    times = [_time(write.get("time")) for write in writes if write.get("subresource") != "status"]
    return max([_time(metadata.get("creationTimestamp")), *times])


def _time(written: object) -> datetime:
    if not isinstance(written, str):
        return NEVER
    return datetime.fromisoformat(written).astimezone(UTC)
