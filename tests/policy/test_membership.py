"""Who may be a member of a mesh."""

from collections.abc import Mapping
from typing import Any

import pytest

from kuma.policy import membership
from kuma.resources import codec

MESH = {"type": "Mesh", "name": "m"}
FULFILS, RESTRICTED = "does not fulfill any requirements", "matches restricted tags"


def excluded(rules: Mapping[str, Any], *inbounds: Mapping[str, str], gateway: Mapping[str, str] | None = None) -> str:
    mesh = codec.parse({**MESH, "constraints": {"dataplaneProxy": rules}})
    networking: dict[str, Any] = {"address": "127.0.0.1"}
    networking["inbound"] = [
        {"port": 80 + i, "servicePort": 8080 + i, "tags": {"kuma.io/service": "s", **tags}}
        for i, tags in enumerate(inbounds)
    ]
    if gateway is not None:
        networking["gateway"] = {"tags": {"kuma.io/service": "g", **gateway}}
    dataplane = codec.parse({"type": "Dataplane", "mesh": "m", "name": "d", "networking": networking})
    return membership.exclusion("m", mesh.spec.membership, dataplane.spec)


TEAM = {"requirements": [{"tags": {"team": "a"}}, {"tags": {"team": "b", "env": "*"}}]}
LEGACY = {"restrictions": [{"tags": {"legacy": "*"}}]}


@pytest.mark.parametrize(
    ("rules", "inbounds", "reason"),
    [
        ({}, [{}], ""),
        (TEAM, [{"team": "a"}], ""),
        (TEAM, [{"team": "b", "env": "dev"}], ""),
        (TEAM, [{"team": "b"}], FULFILS),
        (TEAM, [{"team": "a"}, {}], FULFILS),
        (LEGACY, [{"team": "a"}], ""),
        (LEGACY, [{}, {"legacy": "yes"}], RESTRICTED),
        ({**TEAM, **LEGACY}, [{"team": "a", "legacy": "1"}], RESTRICTED),
    ],
)
def test_every_inbound_fulfils_a_requirement_and_no_restriction(
    rules: Mapping[str, Any], inbounds: list[dict[str, str]], reason: str
) -> None:
    found = excluded(rules, *inbounds)
    assert reason in found
    assert bool(found) is bool(reason)


def test_a_gateway_is_held_to_the_same_rules() -> None:
    assert excluded(TEAM, gateway={"team": "a"}) == ""
    assert excluded(TEAM, gateway={"team": "c"}) == (
        'dataplane cannot be a member of mesh "m" because its tags "kuma.io/service=g kuma.io/zone=default team=c" '
        "does not fulfill any requirements defined on the Mesh"
    )
