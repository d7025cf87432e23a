"""Metadata that kuma-dp says of itself, carried through the bootstrap and Envoy's node back to the control plane."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from kuma.base.values import printable
from kuma.resources.models.dataplane_insight import EnvoyVersion, KumaDpVersion, Version

DYNAMIC = "dynamicMetadata"
"""The key of the node's metadata under which kuma-dp's own pairs stand."""
_DEPENDENCY = "version.dependencies."
_LONGEST = 200
_MOST_DEPENDENCIES = 50
_MOST_SHARED = 256


def versions(metadata: Mapping[str, Any]) -> Version:
    """Reads the versions in a node's metadata: of kuma-dp, of Envoy, and of what else kuma-dp runs (as CoreDNS)."""
    found = metadata.get("version")
    return Version(
        kuma_dp=_kuma_dp(*(_text(found, "kumaDp", name) for name in ("version", "gitTag", "gitCommit", "buildDate"))),
        envoy=_envoy(_text(found, "envoy", "version"), _text(found, "envoy", "build")),
        dependencies=_dependencies(metadata.get(DYNAMIC)),
    )


@lru_cache(maxsize=_MOST_SHARED)
def _kuma_dp(version: str, git_tag: str, git_commit: str, build_date: str) -> KumaDpVersion:
    """Returns a version of kuma-dp: the same object for the thousands that run it. What it is made of is short."""
    return KumaDpVersion(version=version, git_tag=git_tag, git_commit=git_commit, build_date=build_date)


@lru_cache(maxsize=_MOST_SHARED)
def _envoy(version: str, build: str) -> EnvoyVersion:
    """Does the same for a version of Envoy."""
    return EnvoyVersion(version=version, build=build)


def _text(data: Any, part: str, field: str) -> str:
    found = data.get(part, {}) if isinstance(data, Mapping) else {}
    value = found.get(field, "") if isinstance(found, Mapping) else ""
    return printable.printable(value[:_LONGEST]) if isinstance(value, str) else ""


def _dependencies(dynamic: Any) -> dict[str, str]:
    pairs = dynamic.items() if isinstance(dynamic, Mapping) else ()
    found = {
        printable.printable(name.removeprefix(_DEPENDENCY)[:_LONGEST]): printable.printable(value[:_LONGEST])
        for name, value in sorted(pairs)
        if name.startswith(_DEPENDENCY) and isinstance(value, str)
    }
    return dict(list(found.items())[:_MOST_DEPENDENCIES])
