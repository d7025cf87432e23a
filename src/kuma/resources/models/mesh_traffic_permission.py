"""MeshTrafficPermission: which callers a part of the mesh admits, and which it refuses. Refusals override."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Literal

from pydantic import Field

from kuma.base.errors import Violation
from kuma.resources import tags as tag_rules
from kuma.resources.resource import Model

ACTIONS = ("Allow", "Deny", "AllowWithShadowDeny")
_KINDS: Mapping[str, tuple[bool, bool]] = {
    "Mesh": (False, False),
    "MeshSubset": (False, True),
    "MeshService": (True, False),
    "MeshServiceSubset": (True, True),
}
"""Whether a kind of reference has a name, and tags."""
EFFECT, SHADOW = "kuma.io/effect", "shadow"
"""A label, and its value that keeps a policy from having any effect."""
_NAME = re.compile(r"[0-9a-z.\-_]*", re.ASCII)


class TargetRef(Model):
    """A part of the mesh: all of it, what carries some tags, a service, or what of a service carries some tags."""

    kind: str = ""
    name: str = ""
    tags: dict[str, str] = {}
    proxy_types: tuple[Literal["Sidecar", "Gateway"], ...] = ()

    @property
    def selected(self) -> Mapping[str, str]:
        """The tags by which it selects; none for the whole mesh."""
        return {**({tag_rules.SERVICE: self.name} if self.name else {}), **self.tags}


class Default(Model):
    """Action for a caller."""

    action: str = ""


class From(Model):
    """Callers, and the action for them."""

    target_ref: TargetRef = TargetRef()
    default: Default = Default()


class MeshTrafficPermissionSpec(Model):
    """Spec of a MeshTrafficPermission."""

    target_ref: TargetRef = TargetRef()
    from_: tuple[From, ...] = Field(default=(), alias="from")


def validate(spec: MeshTrafficPermissionSpec) -> Iterator[Violation]:
    """Every rule that the structure alone does not express."""
    yield from _reference("targetRef", spec.target_ref)
    if not spec.from_:
        yield Violation("from", "needs at least one item")
    for index, item in enumerate(spec.from_):
        path = f"from[{index}]"
        yield from _reference(f"{path}.targetRef", item.target_ref)
        if not item.default.action:
            yield Violation(f"{path}.default.action", f"must be defined; one of {', '.join(ACTIONS)}")
        elif item.default.action not in ACTIONS:
            yield Violation(f"{path}.default.action", f"has to be one of {', '.join(ACTIONS)}")


def _reference(path: str, reference: TargetRef) -> Iterator[Violation]:
    if not reference.kind:
        yield Violation(f"{path}.kind", f"must be defined; one of {', '.join(_KINDS)}")
        return
    if reference.kind not in _KINDS:
        yield Violation(f"{path}.kind", f"value is not supported; one of {', '.join(_KINDS)}")
        return
    yield from _name(path, reference)
    yield from _tags(path, reference)
    if reference.proxy_types and reference.kind not in ("Mesh", "MeshSubset"):
        yield Violation(f"{path}.proxyTypes", f"must not be set with kind {reference.kind}")
    elif reference.proxy_types and "Sidecar" not in reference.proxy_types:
        yield Violation(f"{path}.proxyTypes", "there are no gateways here; has to name Sidecar, or nothing")


def _name(path: str, reference: TargetRef) -> Iterator[Violation]:
    has_name, _ = _KINDS[reference.kind]
    if has_name and not reference.name:
        yield Violation(f"{path}.name", f"must be set with kind {reference.kind}")
    if reference.name and reference.kind == "Mesh":
        yield Violation(f"{path}.name", "using name with kind Mesh is not yet supported")
    elif reference.name and not has_name:
        yield Violation(f"{path}.name", f"must not be set with kind {reference.kind}")
    if not _NAME.fullmatch(reference.name):
        allowed = "must consist of lower case alphanumeric characters, '-', '.' and '_'."
        yield Violation(f"{path}.name", f"invalid characters: {allowed}")


def _tags(path: str, reference: TargetRef) -> Iterator[Violation]:
    has_name, has_tags = _KINDS[reference.kind]
    if reference.tags and not has_tags:
        yield Violation(f"{path}.tags", f"must not be set with kind {reference.kind}")
    if has_name and has_tags and tag_rules.SERVICE in reference.tags:
        yield Violation(
            f'{path}.tags["{tag_rules.SERVICE}"]', f"must not be set with kind {reference.kind}: name says the service"
        )
    yield from tag_rules.validate(f"{path}.tags", reference.tags)


def warnings(spec: MeshTrafficPermissionSpec) -> Iterator[str]:
    """Returns warnings about what is allowed but should be known."""
    if any(item.target_ref.kind == "MeshService" for item in spec.from_):
        yield (
            "MeshService value for 'from[].targetRef.kind' is deprecated, use MeshSubset with 'kuma.io/service' instead"
        )
