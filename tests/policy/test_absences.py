"""Selectors that select nobody are told, with what is nearest."""

from __future__ import annotations

from typing import Any

import pytest

from kuma.policy.absences import absences
from kuma.resources import codec
from kuma.resources.resource import Resource


def dataplane(name: str, **tags: str) -> Resource[Any]:
    inbound = {"port": 80, "name": "http", "servicePort": 8080, "tags": {"kuma.io/service": name, **tags}}
    networking = {"address": "10.0.0.1", "inbound": [inbound]}
    document = {"type": "Dataplane", "mesh": "m", "name": f"{name}-01", "labels": {"app": name}}
    return codec.parse({**document, "networking": networking})


DATAPLANES = [dataplane("web", version="v1"), dataplane("backend", version="v2", team="shop")]


def legacy(source: dict[str, str], destination: dict[str, str]) -> Resource[Any]:
    selectors = {"sources": [{"match": source}], "destinations": [{"match": destination}]}
    return codec.parse({"type": "TrafficPermission", "mesh": "m", "name": "p", **selectors})


def targeting(target: dict[str, Any], *callers: dict[str, Any], **more: Any) -> Resource[Any]:
    items = [{"targetRef": caller, "default": {"action": "Allow"}} for caller in callers]
    spec = {"targetRef": target, **({"from": items} if items else {}), **more}
    return codec.parse({"type": "MeshTrafficPermission", "mesh": "m", "name": "p", "spec": spec})


ANY = {"kuma.io/service": "*"}
MESH = {"kind": "Mesh"}
WEB = {"spiffeID": {"type": "Exact", "value": "spiffe://m/web"}}
NOBODY = {"spiffeID": {"type": "Prefix", "value": "spiffe://m/wep"}}
FOREIGN = {"spiffeID": {"type": "Prefix", "value": "spiffe://elsewhere/web"}}


@pytest.mark.parametrize(
    ("permission", "said"),
    [
        (legacy(ANY, ANY), []),
        (legacy({"kuma.io/service": "web", "tag": "*"}, {"kuma.io/service": "backend", "version": "*"}), []),
        (legacy(ANY, {"kuma.io/service": "backend", "kuma.io/zone": "default"}), []),
        (
            legacy({"kuma.io/service": "wep"}, {"kuma.io/service": "bakend"}),
            [
                'destinations[0].match: no Dataplane of the mesh has the tag kuma.io/service "bakend"; '
                'the nearest is "backend"',
                'sources[0].match: no Dataplane of the mesh has the tag kuma.io/service "wep"; the nearest is "web"',
            ],
        ),
        (
            legacy({"vesion": "v1"}, {**ANY, "colour": "red"}),
            [
                "destinations[0].match: no Dataplane of the mesh has the tag colour",
                'sources[0].match: no Dataplane of the mesh has the tag vesion; the nearest is "version"',
            ],
        ),
        (
            legacy({"kuma.io/service": "web", "version": "v2"}, ANY),
            ["sources[0].match: no Dataplane of the mesh has all of kuma.io/service=web version=v2"],
        ),
        (targeting(MESH, MESH), []),
        (targeting({"kind": "Dataplane", "labels": {"app": "web"}, "sectionName": "http"}, MESH), []),
        (
            targeting({"kind": "Dataplane", "labels": {"app": "webb"}}, {"kind": "MeshService", "name": "frontend"}),
            [
                'spec.targetRef: no Dataplane of the mesh has the label app "webb"; the nearest is "web"',
                'spec.from[0].targetRef: no Dataplane of the mesh has the tag kuma.io/service "frontend"',
            ],
        ),
        (
            targeting({"kind": "Dataplane", "name": "web-02"}, MESH),
            ['spec.targetRef: no Dataplane of the mesh has the dataplane name "web-02"; the nearest is "web-01"'],
        ),
        (
            targeting({"kind": "Dataplane", "name": "web-01", "sectionName": "htp"}, MESH),
            ["spec.targetRef: no Dataplane of the mesh has the section htp"],
        ),
        (
            targeting(MESH, rules=[{"default": {"allow": [WEB, FOREIGN], "deny": [NOBODY]}}]),
            [
                'spec.rules[0].default.deny[0].spiffeID: no Dataplane of the mesh has the tag kuma.io/service "wep"; '
                'the nearest is "web"'
            ],
        ),
    ],
)  # fmt: skip
def test_who_is_not_there_is_told_with_the_nearest(permission: Resource[Any], said: list[str]) -> None:
    assert [text for text in absences(permission, DATAPLANES) if text] == said
    assert list(absences(permission, [])) == []
