"""Every kind has limits, told by field, number and remedy, and looked at before anything expensive."""

from __future__ import annotations

from typing import Any

import pytest

from kuma.base.errors import InvalidResource
from kuma.resources import codec, kinds, limits

BIG = "x" * 900_000


def mesh(**backend: Any) -> dict[str, Any]:
    return {"type": "Mesh", "name": "m", "mtls": {"backends": [{"name": "ca", "type": "builtin", **backend}]}}


def dataplane(**networking: Any) -> dict[str, Any]:
    inbound = {"port": 80, "servicePort": 8080, "tags": {"kuma.io/service": "web"}}
    return {"type": "Dataplane", "name": "d", "networking": {"address": "10.0.0.1", "inbound": [inbound], **networking}}


def permission(**said: Any) -> dict[str, Any]:
    anybody = [{"match": {"kuma.io/service": "*"}}]
    return {"type": "TrafficPermission", "name": "p", "sources": anybody, "destinations": anybody, **said}


def mesh_permission(**said: Any) -> dict[str, Any]:
    item = {"targetRef": {"kind": "Mesh"}, "default": {"action": "Allow"}}
    return {
        "type": "MeshTrafficPermission", "name": "p",
        "spec": {"targetRef": {"kind": "Mesh"}, "from": [item], **said},
    }  # fmt: skip


def access_log(text: str) -> dict[str, Any]:
    file = {"path": "/dev/stdout", "format": {"plain": text}}
    rule = {"default": {"backends": [{"file": file}]}}
    return {"type": "MeshAccessLog", "name": "l", "spec": {"targetRef": {"kind": "Mesh"}, "rules": [rule]}}


def tagged(count: int) -> dict[str, str]:
    return {"kuma.io/service": "web", **{f"t{number}": "v" for number in range(count - 1)}}


TOO_LARGE = {
    "Mesh": [
        (mesh(mode=BIG), "mtls.backends[0].mode", "1,024"),
        (mesh(conf={"cert": {"inlineString": BIG}}), "mtls.backends[0].conf.cert.inlineString", "65,536"),
        (mesh(config={"key": {"inline": BIG}}), "mtls.backends[0].config.key.inline", "65,536"),
        ({"type": "Mesh", "name": "m", "mtls": {"backends": [{}] * 17}}, "mtls.backends", "16"),
        ({"type": "Mesh", "name": "m", "logging": {"backends": [{}] * 65}}, "logging.backends", "64"),
    ],
    "Dataplane": [
        (dataplane(inbound=[{}] * 101), "networking.inbound", "100"),
        (dataplane(outbound=[{}] * 1001), "networking.outbound", "1,000"),
        (dataplane(inbound=[{"tags": tagged(51)}]), "networking.inbound[0].tags", "50"),
        (dataplane(inbound=[{"tags": {"a": BIG}}]), "networking.inbound[0].tags.a", "255"),
        (dataplane(inbound=[{"tags": {BIG: "a"}}]), "networking.inbound[0].tags", "255"),
        (dataplane(outbound=[{"tags": tagged(17)}]), "networking.outbound[0].tags", "16"),
        (dataplane(address=BIG), "networking.address", "1,024"),
        (dataplane(**{BIG: 1}), "networking", "1,024"),
        (dataplane(**{f"f{number}": 1 for number in range(50_000)}), "networking", "64"),
    ],
    "TrafficPermission": [
        (permission(sources=[{}] * 1001), "sources", "1,000"),
        (permission(destinations=[{}] * 1001), "destinations", "1,000"),
        (permission(sources=[{"match": tagged(17)}]), "sources[0].match", "16"),
        (permission(destinations=[{"match": {"a": BIG}}]), "destinations[0].match.a", "255"),
    ],
    "MeshTrafficPermission": [
        (mesh_permission(**{"from": [{}] * 6500}), "spec.from", "1,000"),
        (mesh_permission(**{"from": [{"targetRef": {"tags": tagged(17)}}]}), "spec.from[0].targetRef.tags", "16"),
        (mesh_permission(targetRef={"tags": {"a": BIG}}), "spec.targetRef.tags.a", "255"),
        (mesh_permission(targetRef={"kind": BIG}), "spec.targetRef.kind", "1,024"),
        (mesh_permission(targetRef={"labels": tagged(17)}), "spec.targetRef.labels", "16"),
        (mesh_permission(rules=[{}] * 17), "spec.rules", "16"),
        (mesh_permission(rules=[{"default": {"deny": [{}] * 1001}}]), "spec.rules[0].default.deny", "1,000"),
    ],
    "TrafficLog": [
        ({**permission(sources=[{}] * 65), "type": "TrafficLog"}, "sources", "64"),
        ({**permission(destinations=[{"match": tagged(17)}]), "type": "TrafficLog"}, "destinations[0].match", "16"),
    ],
    "MeshAccessLog": [
        (access_log("x" * 4097), "spec.rules[0].default.backends[0].file.format.plain", "4,096"),
    ],
    "Secret": [({"type": "Secret", "name": "s", "data": BIG}, "data", "699,054")],
    "GlobalSecret": [({"type": "GlobalSecret", "name": "s", "data": BIG}, "data", "699,054")],
}  # fmt: skip


def test_every_kind_that_users_declare_is_in_the_table() -> None:
    """What has no effect here has the limits of all kinds: nothing is compared with it."""
    declared = {kind.name for kind in kinds.IN_EFFECT if not kind.read_only}
    assert set(limits.MOST) == declared
    assert set(TOO_LARGE) == declared


@pytest.mark.parametrize(
    ("document", "field", "limit"),
    [pytest.param(*case, id=f"{kind}-{case[1]}") for kind, cases in TOO_LARGE.items() for case in cases],
)
def test_too_much_is_refused_with_the_field_the_limit_and_the_remedy(
    document: dict[str, Any], field: str, limit: str
) -> None:
    with pytest.raises(InvalidResource) as caught:
        codec.parse(document)
    (violation,) = caught.value.violations
    assert violation.field == field
    assert f"; {limit} are the most. " in violation.reason
    assert violation.reason.endswith("Shorten it") or "To have fewer, " in violation.reason
    assert len(violation.reason) < 300


def test_as_much_as_the_limit_is_taken() -> None:
    inbounds = [
        {"port": 1000 + number, "servicePort": 8080, "tags": {**tagged(50), "kuma.io/service": f"s{number}"}}
        for number in range(100)
    ]
    outbounds = [{"port": 20000 + number, "tags": {"kuma.io/service": f"s{number}"}} for number in range(1000)]
    assert len(codec.parse(dataplane(inbound=inbounds, outbound=outbounds)).spec.net.outbound) == 1000
    callers = [{"match": {"kuma.io/service": f"s{number}"}} for number in range(1000)]
    assert len(codec.parse(permission(sources=callers, destinations=callers)).spec.sources) == 1000
