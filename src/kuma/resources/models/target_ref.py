"""References of a policy to a part of the mesh, and what a Dataplane's inbounds are known by to those references."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Literal

from kuma.base.errors import Violation
from kuma.resources import labels as label_rules
from kuma.resources import tags as tag_rules
from kuma.resources.models.dataplane import DataplaneSpec, Inbound, beside
from kuma.resources.resource import Model, Resource

DISPLAY_NAME = "kuma.io/display-name"
NAMESPACE = "k8s.kuma.io/namespace"
PROXY_TYPE = "kuma.io/proxy-type"
_FIELDS: Mapping[str, frozenset[str]] = {
    "Mesh": frozenset({"proxyTypes"}),
    "MeshSubset": frozenset({"tags", "proxyTypes"}),
    "MeshService": frozenset({"name"}),
    "MeshServiceSubset": frozenset({"name", "tags"}),
    "Dataplane": frozenset({"name", "namespace", "labels", "sectionName"}),
}
"""What may stand beside the kind of a reference."""
CALLERS = ("Mesh", "MeshSubset", "MeshService", "MeshServiceSubset")
TARGETS = (*CALLERS, "Dataplane")
_NAME = re.compile(r"[0-9a-z.\-_]*", re.ASCII)
_DATAPLANE, _LABEL, _SECTION, _BESIDE = "dataplane ", "label ", "section ", "beside "
"""Beginnings of the names of facets that are no tags: each name has a space, which those of tags have not."""
_YES = "yes"


class TargetRef(Model):
    """A part of the mesh: all of it, what carries some tags, a service or a part of it, or Dataplanes and inbounds."""

    kind: str = ""
    name: str = ""
    namespace: str = ""
    tags: dict[str, str] = {}
    labels: dict[str, str] = {}
    section_name: str = ""
    proxy_types: tuple[Literal["Sidecar", "Gateway"], ...] = ()

    @property
    def selected(self) -> Mapping[str, str]:
        """The facets that it selects by; none for the whole mesh."""
        if self.kind != "Dataplane":
            gateways = {f"{_LABEL}{PROXY_TYPE}": "gateway"} if self.proxy_types == ("Gateway",) else {}
            return {**({tag_rules.SERVICE: self.name} if self.name else {}), **self.tags, **gateways}
        found = {f"{_LABEL}{name}": value for name, value in self.labels.items()}
        if self.name:
            found[f"{_DATAPLANE}name"] = self.name
        if self.namespace:
            found[f"{_LABEL}{NAMESPACE}"] = self.namespace
        if self.section_name:
            found[f"{_SECTION}{self.section_name}"] = _YES
        return found


def is_tag(facet: str) -> bool:
    """Tells whether a facet is a tag of the inbound, or is of another one at its place."""
    return " " not in facet or facet.startswith(_BESIDE)


def facets(
    dataplane: Resource[DataplaneSpec], inbound: Inbound, wanted: Collection[str] | None = None
) -> dict[str, str]:
    """Returns what references know an inbound by: its tags, and of the rest what is `wanted`; None is all of it.

    An inbound is a section by its name, and by its port. Those at the same place are known together: who reaches one
    reaches the workload of all. See `apart`.
    """
    found = _own_facets(dataplane, inbound, wanted)
    for number, other in enumerate(beside(dataplane.spec.net, inbound)):
        others = _own_facets(dataplane, other, wanted)
        found |= {f"{_BESIDE}{number} {name}": value for name, value in others.items()}
    return found


def apart(known_by: Mapping[str, str]) -> list[Mapping[str, str]]:
    """Returns the facets of an inbound, and then those of each that is at its place."""
    if not any(name.startswith(_BESIDE) for name in known_by):
        return [known_by]
    found: dict[str, dict[str, str]] = {"": {}}
    for facet, value in known_by.items():
        number, name = "", facet
        if facet.startswith(_BESIDE):
            number, _, name = facet.removeprefix(_BESIDE).partition(" ")
        found.setdefault(number, {})[name] = value
    return list(found.values())


def _own_facets(dataplane: Resource[DataplaneSpec], inbound: Inbound, wanted: Collection[str] | None) -> dict[str, str]:
    found = dict(inbound.known_tags)
    if wanted is not None and not wanted:
        return found
    labels = computed_labels(dataplane)
    more = {f"{_LABEL}{name}": value for name, value in labels.items()}
    more[f"{_DATAPLANE}name"] = labels.get(DISPLAY_NAME, dataplane.name)
    more |= {f"{_SECTION}{section}": _YES for section in (inbound.name, str(inbound.port)) if section}
    return found | (more if wanted is None else {name: value for name, value in more.items() if name in wanted})


def computed_labels(dataplane: Resource[DataplaneSpec]) -> Mapping[str, str]:
    """Returns the labels that selectors see: those that the original adds to each Dataplane, and what is written."""
    return {
        "kuma.io/mesh": dataplane.mesh,
        "kuma.io/origin": "zone",
        tag_rules.ZONE: tag_rules.THE_ZONE,
        "kuma.io/env": "universal",
        PROXY_TYPE: "gateway" if dataplane.spec.net.gateway else "sidecar",
        **dataplane.labels,
    }


def validate(path: str, reference: TargetRef, kinds: Collection[str] = TARGETS) -> Iterator[Violation]:
    """Checks a reference of one of `kinds`, in the original's words."""
    if not reference.kind:
        yield Violation(f"{path}.kind", f"must be defined; one of {', '.join(kinds)}")
        return
    if reference.kind not in kinds:
        yield Violation(f"{path}.kind", f"value is not supported; one of {', '.join(kinds)}")
        return
    yield from _fields(path, reference)
    if not _NAME.fullmatch(reference.name):
        allowed = "must consist of lower case alphanumeric characters, '-', '.' and '_'."
        yield Violation(f"{path}.name", f"invalid characters: {allowed}")
    if reference.labels and (reference.name or reference.namespace):
        yield Violation(f"{path}.labels", "either labels or name and namespace must be specified")
    if reference.kind == "MeshServiceSubset" and tag_rules.SERVICE in reference.tags:
        reason = "must not be set with kind MeshServiceSubset: name says the service"
        yield Violation(f'{path}.tags["{tag_rules.SERVICE}"]', reason)
    yield from tag_rules.validate(f"{path}.tags", reference.tags)
    yield from label_rules.validate(f"{path}.labels", reference.labels)
    if reference.proxy_types and "Sidecar" not in reference.proxy_types and kinds is CALLERS:
        yield Violation(f"{path}.proxyTypes", "callers are told by tags; has to name Sidecar, or nothing")


def _fields(path: str, reference: TargetRef) -> Iterator[Violation]:
    """Checks what a kind has to have, and may not have."""
    kind, allowed = reference.kind, _FIELDS[reference.kind]
    if not reference.name and kind.startswith("MeshService"):
        yield Violation(f"{path}.name", f"must be set with kind {kind}")
    if reference.name and kind == "Mesh":
        yield Violation(f"{path}.name", "using name with kind Mesh is not yet supported")
        allowed = allowed | {"name"}
    given: Mapping[str, Any] = {
        "name": reference.name,
        "namespace": reference.namespace,
        "tags": reference.tags,
        "labels": reference.labels,
        "sectionName": reference.section_name,
        "proxyTypes": reference.proxy_types,
    }
    for field, value in given.items():
        if value and field not in allowed:
            yield Violation(f"{path}.{field}", f"must not be set with kind {kind}")
