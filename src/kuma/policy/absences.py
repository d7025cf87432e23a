"""Finds selectors of a permission that select nobody, and who is called nearly like that. Pure."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from kuma.policy.matching import match
from kuma.resources import kinds
from kuma.resources import tags as tag_rules
from kuma.resources.models import target_ref
from kuma.resources.models.dataplane import DataplaneSpec
from kuma.resources.resource import Resource

_Selector = Mapping[str, str]
_Dataplanes = Collection[Resource[DataplaneSpec]]


def absences(permission: Resource[Any], dataplanes: _Dataplanes) -> Iterator[str | None]:
    """Yields a warning for each selector that no Dataplane of the mesh matches; None between.

    In a mesh without Dataplanes nothing is said: there is nobody to compare with. Of very many selectors the first are
    looked at.
    """
    selectors = [*_targets(permission)], [*_callers(permission)]
    if not dataplanes:
        return
    for wanted, known_by in zip(selectors, (_inbounds, _identities), strict=True):
        left = dict(itertools.islice(((path, selector) for path, selector in wanted if selector), _LOOKED_AT))
        seen: dict[str, set[str]] = {}
        for dataplane in dataplanes:
            yield None
            for facets in known_by(dataplane, {name for selector in left.values() for name in selector}):
                for name, value in facets.items():
                    seen.setdefault(name, set()).add(value)
                left = {path: selector for path, selector in left.items() if match(selector, facets) is None}
            if not left:
                break
        for path, selector in left.items():
            yield f"{path}: {_said(selector, seen)}"


def _targets(permission: Resource[Any]) -> Iterator[tuple[str, _Selector]]:
    if permission.key.kind == kinds.TRAFFIC_PERMISSION.name:
        for index, destination in enumerate(permission.spec.destinations):
            yield f"destinations[{index}].match", destination.match
    else:
        yield "spec.targetRef", permission.spec.selected


def _callers(permission: Resource[Any]) -> Iterator[tuple[str, _Selector]]:
    if permission.key.kind == kinds.TRAFFIC_PERMISSION.name:
        for index, source in enumerate(permission.spec.sources):
            # `*` stands for any caller, whether it has the tag or not.
            yield f"sources[{index}].match", {n: v for n, v in source.match.items() if v != tag_rules.ANY}
        return
    for index, item in enumerate(permission.spec.from_):
        yield f"spec.from[{index}].targetRef", item.target_ref.selected
    for index, rule in enumerate(permission.spec.rules):
        for name, _, matches in rule.lists:
            for position, one in enumerate(matches):
                path = f"spec.rules[{index}].default.{name}[{position}].spiffeID"
                yield path, (one.spiffe_id.caller(permission.mesh) if one.spiffe_id else None) or {}


def _inbounds(dataplane: Resource[DataplaneSpec], wanted: Collection[str]) -> Iterator[_Selector]:
    """Yields what the inbounds of a Dataplane are known by."""
    others = frozenset(name for name in wanted if not target_ref.is_tag(name))
    return (target_ref.facets(dataplane, inbound, others) for inbound in dataplane.spec.net.inbound)


def _identities(dataplane: Resource[DataplaneSpec], _: Collection[str]) -> Iterator[_Selector]:
    """Yields what a caller is known by, once for each service and gateway."""
    return iter(dataplane.spec.net.tag_sets)


def _said(selector: _Selector, seen: Mapping[str, Collection[str]]) -> str:
    """Tells what of a selector nobody has, and the nearest that somebody has."""
    for name, value in sorted(selector.items()):
        if name not in seen:
            return f"no Dataplane of the mesh has {_kind(name)}{_near(name, seen)}"
        if value != tag_rules.ANY and value not in seen[name]:
            return f'no Dataplane of the mesh has {_kind(name)} "{value}"{_near(value, seen[name])}'
    return f"no Dataplane of the mesh has all of {' '.join(f'{n}={v}' for n, v in sorted(selector.items()))}"


def _kind(name: str) -> str:
    return f"the tag {name}" if target_ref.is_tag(name) else f"the {name}"


def _near(text: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(text, sorted(known)[:_COMPARED], n=1)
    return f'; the nearest is "{close[0]}"' if close else ""


_COMPARED = 1000
"""Names that one is compared with: more would take long."""
_LOOKED_AT = 50
"""Callers, and places, of one permission: each is compared with every inbound of the mesh."""
