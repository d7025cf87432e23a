"""Fields of the original that say nothing here: what asks for nothing is taken, all else is refused by name."""

from collections.abc import Mapping
from typing import Any

import pytest

from kuma.base.errors import InvalidResource
from kuma.resources import codec

MESH = {"type": "Mesh", "name": "default"}
REFERENCE = {"kind": "Mesh", "proxyTypes": ["Sidecar"]}


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ({"skipCreatingInitialPolicies": ["*"]}, None),
        ({"networking": {"outbound": {"passthrough": True}}}, None),
        ({"networking": {"outbound": {}}}, None),
        ({"networking": {}, "metrics": {}, "logging": {}, "tracing": {}, "routing": {}, "constraints": {}}, None),
        ({"meshServices": {}}, None),
        ({"meshServices": {"mode": "Disabled"}}, {"meshServices": {}}),
        ({"routing": {"localityAwareLoadBalancing": False, "zoneEgress": False}}, {"routing": {}}),
        ({"metrics": {"enabledBackend": "", "backends": []}}, {"metrics": {}}),
        ({"constraints": {"dataplaneProxy": {"requirements": []}}}, {"constraints": {"dataplaneProxy": {}}}),
        ({"mtls": {"skipValidation": False}}, {"mtls": {}}),
    ],
)
def test_what_asks_for_nothing_is_kept_as_it_is_meant(
    asked: Mapping[str, Any], meant: Mapping[str, Any] | None
) -> None:
    found = codec.to_universal(codec.parse({**MESH, **asked}))
    assert {name: found[name] for name in asked} == (asked if meant is None else meant)
    assert codec.parse(found).spec == codec.parse({**MESH, **asked}).spec


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"networking": {"outbound": {"passthrough": False}}}, "networking.outbound.passthrough"),
        ({"routing": {"zoneEgress": True}}, "routing.zoneEgress"),
        ({"routing": {"localityAwareLoadBalancing": True}}, "routing.localityAwareLoadBalancing"),
        ({"metrics": {"enabledBackend": "p"}}, "metrics.enabledBackend"),
        ({"logging": {"defaultBackend": "f"}}, "logging.defaultBackend"),
        ({"tracing": {"backends": [{"name": "z"}]}}, "tracing.backends"),
        (
            {"constraints": {"dataplaneProxy": {"requirements": [{"tags": {}}]}}},
            "constraints.dataplaneProxy.requirements",
        ),
        ({"meshServices": {"mode": "Exclusive"}}, "meshServices.mode"),
        ({"metrics": {"backend": []}}, "metrics.backend"),
        ({"netwroking": {}}, "netwroking"),
    ],
)
def test_what_asks_for_something_is_refused_by_name(asked: Mapping[str, Any], field: str) -> None:
    with pytest.raises(InvalidResource) as refused:
        codec.parse({**MESH, **asked})
    assert [violation.field for violation in refused.value.violations] == [field]


def permission(target: Mapping[str, Any], source: Mapping[str, Any]) -> dict[str, Any]:
    spec = {"targetRef": target, "from": [{"targetRef": source, "default": {"action": "Allow"}}]}
    return {"type": "MeshTrafficPermission", "mesh": "default", "name": "m", "spec": spec}


def test_sidecars_are_all_the_proxies_that_there_are() -> None:
    document = permission(REFERENCE, {"kind": "MeshSubset", "proxyTypes": ["Sidecar", "Gateway"], "tags": {"a": "b"}})
    assert codec.to_universal(codec.parse(document))["spec"] == document["spec"]


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ({"kind": "Mesh", "proxyTypes": ["Gateway"]}, "there are no gateways here"),
        ({"kind": "MeshService", "name": "web", "proxyTypes": ["Sidecar"]}, "must not be set with kind MeshService"),
    ],
)
def test_other_proxies_are_refused(reference: Mapping[str, Any], reason: str) -> None:
    with pytest.raises(InvalidResource, match=reason):
        codec.parse(permission(reference, {"kind": "Mesh"}))
