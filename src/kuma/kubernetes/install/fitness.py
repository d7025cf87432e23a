"""What an installation lacks for this version of the control plane: access that it needs, definitions of its kinds."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import kuma

Rule = Mapping[str, Any]
VERSION = "kuma.io/version"
CONTENT = "kuma.io/definition"
"""Annotations of definitions: the version of Kuma that they were printed by, and a hash of what they say."""


def marked(definition: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a definition that tells which version it is of."""
    annotations = {VERSION: kuma.__version__, CONTENT: _content(definition)}
    return {**definition, "metadata": {**definition["metadata"], "annotations": annotations}}


def _content(definition: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(definition["spec"], sort_keys=True).encode()).hexdigest()[:16]


def differing(wanted: Sequence[Mapping[str, Any]], found: Mapping[str, Mapping[str, Any] | None]) -> list[str]:
    """Tells which definitions are not those of this version; `found` are the installed ones by name, None if absent."""
    told = []
    for one in wanted:
        name = one["metadata"]["name"]
        installed = found.get(name)
        if installed is None:
            told.append(f"{name} is not installed")
            continue
        annotations = installed["metadata"].get("annotations") or {}
        if annotations.get(CONTENT) != one["metadata"]["annotations"][CONTENT]:
            told.append(f"{name} is of version {annotations.get(VERSION, 'unknown')}, not {kuma.__version__}")
    return told


def missing_access(needed: Sequence[Rule], granted: Sequence[Rule]) -> list[str]:
    """Tells which verbs of which resources are needed and not granted, as `kubectl auth can-i` takes them."""
    return [
        f"{verb} {resource}{f'.{group}' if group else ''}{f'/{name}' if name else ''}"
        for rule in needed
        for group, resource, name, verb in _asked(rule)
        if not any(_grants(one, group, resource, name, verb) for one in granted)
    ]


def _asked(rule: Rule) -> Iterator[tuple[str, str, str, str]]:
    yield from itertools.product(rule["apiGroups"], rule["resources"], rule.get("resourceNames") or [""], rule["verbs"])


def _grants(rule: Rule, group: str, resource: str, name: str, verb: str) -> bool:
    names = rule.get("resourceNames") or ()
    return (
        _has(rule, "verbs", verb)
        and _has(rule, "apiGroups", group)
        and _has(rule, "resources", resource)
        and (not names or name in names)
    )


def _has(rule: Rule, field: str, value: str) -> bool:
    listed = rule.get(field) or ()
    return "*" in listed or value in listed
