"""The written forms of a resource: Universal (`type:`, `name:`, `mesh:`) and Kubernetes (`apiVersion:`, `kind:`)."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import yaml

from kuma.base.errors import InvalidResource, NotForUs, Violation
from kuma.base.values import strict_json
from kuma.resources import keys, kinds, parsing
from kuma.resources import labels as label_rules
from kuma.resources.kinds import Kind
from kuma.resources.resource import NEVER, Key, Resource

GROUP_VERSION = "kuma.io/v1alpha1"
MESH_LABEL = "kuma.io/mesh"
SYSTEM_NAMESPACE = "kuma-system"
SECRET_TYPES = {"Secret": "system.kuma.io/secret", "GlobalSecret": "system.kuma.io/global-secret"}
_LONGEST_INTEGER = 100
"""The most characters of an integer in YAML."""
_MERGE = "tag:yaml.org,2002:merge"
"""The tag of the key `<<`, which brings the names of other maps in."""
_TOO_DEEP = "is nested too deeply"
_UNREADABLE = (yaml.YAMLError, ValueError, ArithmeticError, LookupError, AttributeError)
"""What PyYAML raises: besides errors of its own, what its constructors stumble over (`!!bool x`, `!!int ""`, ...)."""
_META = ("type", "mesh", "name", "creationTime", "modificationTime", "labels", "kri")


class _StrictLoader(yaml.SafeLoader):
    """YAML without silent surprises: a key written twice is an error, not "the last one wins"."""

    _depth = 0
    _merged = 0

    def document(self) -> Mapping[str, Any] | InvalidResource | None:
        """The next document, or what is wrong with it; None if it is empty."""
        node = self.get_node()
        try:
            found = self.construct_document(node)
        except InvalidResource as error:
            return self._failed(error)
        except RecursionError:
            return self._failed(InvalidResource.of("", _TOO_DEEP))
        except _UNREADABLE as error:
            return self._failed(InvalidResource.of("", f"is not valid YAML: {yaml_problem(error)}"))
        if found is None or isinstance(found, dict):
            try:
                strict_json.check(found)  # before anything walks through what its aliases stand for
            except ValueError as error:
                return InvalidResource.of("", str(error))
            return found
        return InvalidResource.of("", "a resource has to be a map that begins with `type:` or `apiVersion:`")

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Composes what stands within `parent`; very deep nesting takes PyYAML much longer than its length."""
        self._depth += 1
        if self._depth > strict_json.DEEPEST + 1:
            raise InvalidResource.of("", _TOO_DEEP)
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Puts in the place of `<<` what the maps hold that it names: what stands in `node` itself is stronger.

        Of several maps the first is the strongest (https://yaml.org/type/merge.html). Names are brought in a bounded
        number of times: maps that bring in each other stand for any number of them.
        """
        own = [pair for pair in node.value if pair[0].tag != _MERGE]
        sources = [value for key, value in node.value if key.tag == _MERGE]
        if not sources:
            return
        merged: list[tuple[yaml.Node, yaml.Node]] = []
        for source in sources:
            for each in reversed(source.value) if isinstance(source, yaml.SequenceNode) else (source,):
                if not isinstance(each, yaml.MappingNode):
                    line = each.start_mark.line + 1
                    raise InvalidResource.of("<<", f"brings in maps only; what it names at line {line} is none")
                self.flatten_mapping(each)
                self._merged += len(each.value)
                if self._merged > strict_json.MOST:
                    raise InvalidResource.of("<<", f"brings in more than {strict_json.MOST} values")
                merged += each.value
        node.value = [*merged, *own]

    def _failed(self, error: InvalidResource) -> InvalidResource:
        """Forget the half that was made of a document, for the next one to begin afresh."""
        self.constructed_objects, self.recursive_objects = {}, {}
        self.state_generators, self.deep_construct = [], False
        return error


def _mapping(loader: _StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen = set[Hashable]()
    written = (key.value if key.tag == _MERGE else loader.construct_object(key, deep=True) for key, _ in node.value)
    for key in written:
        if not isinstance(key, Hashable):
            continue  # refused below, with its place
        if key in seen:
            line = node.start_mark.line + 1
            raise InvalidResource.of(str(key), f"is written twice in the map that begins at line {line}")
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


def _integer(loader: _StrictLoader, node: yaml.ScalarNode) -> int:
    if len(node.value) > _LONGEST_INTEGER:  # the time of sexagesimal ones grows with the square of their length
        raise InvalidResource.of(
            "", f"has an integer of {len(node.value)} characters; write it in quotes if it is a text"
        )
    return loader.construct_yaml_int(node)


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
_StrictLoader.add_constructor("tag:yaml.org,2002:int", _integer)


def documents(text: str) -> Iterator[Mapping[str, Any]]:
    """The documents of a YAML (or JSON) text; empty ones are passed over.

    Raises:
        InvalidResource: the text is no YAML, or a document is no map.
    """
    for _, found in numbered(text):
        if isinstance(found, InvalidResource):
            raise found
        yield found


def numbered(text: str) -> Iterator[tuple[int, Mapping[str, Any] | InvalidResource]]:
    """The documents of a YAML (or JSON) text with their numbers from 1, each as it is or with what is wrong with it.

    Empty ones are counted and passed over. After a text that is no YAML there is nothing more to be read.
    """
    number = 1
    try:
        loader = _StrictLoader(text)
        while loader.check_node():
            found = loader.document()
            if found is not None:
                yield number, found
            number += 1
    except InvalidResource as error:
        yield number, error
    except _UNREADABLE as error:
        yield number, InvalidResource.of("", f"is not valid YAML: {yaml_problem(error)}")
    except RecursionError:
        yield number, InvalidResource.of("", _TOO_DEEP)


def yaml_problem(error: Exception) -> str:
    """Describes and locates a YAML error without quoting the text, which may be a Secret's."""
    if isinstance(error, yaml.reader.ReaderError):
        return f"a character at position {error.position} is not allowed: {error.reason}"
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return "it holds a number, a date or a character that there cannot be"
    words = ", ".join(part for part in (error.context, error.problem) if part)
    words = re.sub(r"'[^']{3,}'|\"[^\"]{3,}\"", "...", words)
    return f"{words} (line {error.problem_mark.line + 1}, column {error.problem_mark.column + 1})"


def parse(document: Mapping[str, Any], *, default_mesh: str = "default") -> Resource[Any]:
    """The resource that a document in either form declares.

    Raises:
        InvalidResource: with every violation; Kubernetes documents are reported at their own paths (`spec.…`).
    """
    try:
        strict_json.check(document)  # what is kept as it was written is looked at by no model
    except ValueError as error:
        raise InvalidResource.of("", str(error)) from None
    if "apiVersion" in document or "kind" in document:
        return _parse_kubernetes(document, default_mesh)
    return _parse_universal(document, default_mesh)


def _parse_universal(document: Mapping[str, Any], default_mesh: str) -> Resource[Any]:
    kind = kinds.declarable(_text(document, "type"))
    if not kind.in_mesh and document.get("mesh"):
        raise InvalidResource.of("mesh", f"must not be set: a {kind.name} belongs to no mesh")
    mesh = (_text(document, "mesh") if document.get("mesh") else default_mesh) if kind.in_mesh else ""
    key = Key(kind.name, mesh, _text(document, "name"))
    keys.check(key)
    content = {name: value for name, value in document.items() if name not in _META}
    labels = _labels(document.get("labels"), "labels")
    if kind.nested:
        return Resource(key, _under_spec(kind, content, mesh, labels), labels=labels)
    return Resource(key, parsing.parse_spec(kind, kind.completed(content, labels), mesh), labels=labels)


def _under_spec(kind: Kind, content: Mapping[str, Any], mesh: str, labels: Mapping[str, str]) -> Any:
    """Parses what stands under `spec`, with violations at their paths below it."""
    unknown = sorted(set(content) - {"spec", "status"})  # a control plane has written the status, and writes its own
    if unknown:
        raise InvalidResource(
            Violation(field, "unknown field; what the resource says stands under spec") for field in unknown
        )
    spec = content.get("spec") or {}
    if not isinstance(spec, Mapping):
        raise InvalidResource.of("spec", "has to be a map")
    try:
        return parsing.parse_spec(kind, kind.completed(spec, labels), mesh)
    except InvalidResource as error:
        raise InvalidResource(
            Violation(f"spec.{v.field}" if v.field else "spec", v.reason) for v in error.violations
        ) from None


def _parse_kubernetes(document: Mapping[str, Any], default_mesh: str) -> Resource[Any]:
    metadata = document.get("metadata")
    if not isinstance(metadata, Mapping):
        raise InvalidResource.of("metadata", "is required and has to be a map with at least `name`")
    name, labels = _text(metadata, "name", "metadata.name"), _labels(metadata.get("labels"), "metadata.labels")
    version = document.get("apiVersion")
    if isinstance(version, str) and _is_foreign(version, document.get("kind")):
        raise NotForUs.of(
            "apiVersion", f"{version} {document.get('kind', '')} belongs to Kubernetes; use kubectl for it"
        )
    if version == "v1":
        return _parse_kubernetes_secret(document, name, labels, default_mesh)
    if version != GROUP_VERSION:
        raise InvalidResource.of("apiVersion", f'has to be "{GROUP_VERSION}" (or "v1" for a Secret)')
    kind = kinds.declarable(_text(document, "kind"))
    if kind.name in SECRET_TYPES:
        raise InvalidResource.of(
            "apiVersion", f'has to be "v1" with `kind: Secret` and `type: {SECRET_TYPES[kind.name]}`'
        )
    key = kind.key(name, str(document.get("mesh") or labels.get(MESH_LABEL) or default_mesh))
    keys.check(key)
    content = {field: v for field, v in document.items() if field not in ("apiVersion", "kind", "metadata", "mesh")}
    return Resource(key, _under_spec(kind, content, key.mesh, labels), labels=labels)


def _is_foreign(version: str, kind: object) -> bool:
    """Tells whether a document is for Kubernetes itself, rather than a slip in one that is for us."""
    group = version.partition("/")[0]
    return kind != "Secret" if version == "v1" else "kuma" not in group and "/" in version


def _parse_kubernetes_secret(
    document: Mapping[str, Any], name: str, labels: Mapping[str, str], default_mesh: str
) -> Resource[Any]:
    by_type = {kubernetes_type: kind for kind, kubernetes_type in SECRET_TYPES.items()}
    kind = by_type.get(str(document.get("type")))
    if document.get("kind") != "Secret" or kind is None:
        raise InvalidResource.of("type", f"has to be one of {', '.join(sorted(by_type))}")
    data = document.get("data")
    if not isinstance(data, Mapping) or set(data) != {"value"}:
        raise InvalidResource.of("data", "has to be a map with the one key `value`, in base64")
    key = kinds.by_name(kind).key(name, labels.get(MESH_LABEL, default_mesh))
    keys.check(key)
    return Resource(key, parsing.parse_spec(kinds.by_name(kind), {"data": data["value"]}), labels=labels)


def _text(document: Mapping[str, Any], field: str, path: str = "") -> str:
    value = document.get(field)
    if not isinstance(value, str) or not value:
        raise InvalidResource.of(path or field, "has to be a non-empty string" if value else "is required")
    return value


def _labels(value: Any, path: str) -> Mapping[str, str]:
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(item, str) for pair in value.items() for item in pair):
        raise InvalidResource.of(path, "has to be a map of strings to strings; put numbers in quotes")
    violations = tuple(label_rules.validate(path, value))
    if violations:
        raise InvalidResource(violations)
    return dict(value)


def to_universal(resource: Resource[Any]) -> dict[str, Any]:
    """The Universal form, metadata first, as the REST API answers it."""
    spec = resource.spec.to_wire()
    return {**meta(resource), **({"spec": spec} if kinds.by_name(resource.key.kind).nested else spec)}


def as_declared(resource: Resource[Any]) -> dict[str, Any]:
    """The Universal form as its author writes it: without the times that a store sets."""
    return {name: value for name, value in to_universal(resource).items() if name not in _TIMES}


_TIMES = ("creationTime", "modificationTime")


def meta(resource: Resource[Any]) -> dict[str, Any]:
    """The metadata of the Universal form."""
    found: dict[str, Any] = {"type": resource.key.kind}
    if resource.key.mesh:
        found["mesh"] = resource.key.mesh
    found["name"] = resource.key.name
    found["creationTime"] = rfc3339(resource.creation_time)
    found["modificationTime"] = rfc3339(resource.modification_time)
    if resource.labels:
        found["labels"] = dict(resource.labels)
    return found


def to_kubernetes(resource: Resource[Any]) -> dict[str, Any]:
    """The Kubernetes form, as one would apply it with kubectl."""
    key, spec = resource.key, resource.spec.to_wire()
    metadata: dict[str, Any] = {"name": key.name}
    labels = dict(resource.labels)
    if key.kind in SECRET_TYPES:
        labels |= {MESH_LABEL: key.mesh} if key.mesh else {}
        metadata |= {"namespace": SYSTEM_NAMESPACE} | ({"labels": labels} if labels else {})
        data = {"value": spec.get("data", "")}
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": SECRET_TYPES[key.kind],
            "metadata": metadata,
            "data": data,
        }
    mesh = {"mesh": key.mesh} if key.mesh else {}
    if kinds.by_name(key.kind).nested:  # the kinds of today live in a namespace, and say by a label to which mesh
        metadata |= {"namespace": SYSTEM_NAMESPACE}
        labels, mesh = {**labels, MESH_LABEL: key.mesh}, {}
    metadata |= {"labels": labels} if labels else {}
    return {"apiVersion": GROUP_VERSION, "kind": key.kind, **mesh, "metadata": metadata, "spec": spec}


def rfc3339(time: datetime) -> str:
    """A UTC instant as RFC 3339 writes it."""
    if time == NEVER:
        return "0001-01-01T00:00:00Z"
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")
