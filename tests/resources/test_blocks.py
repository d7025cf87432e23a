"""Parts of the original that have no effect here are given back and told; unsafe ones are refused by name."""

from collections.abc import Mapping
from typing import Any

import pytest

from kuma.base.errors import InvalidResource
from kuma.resources import codec, kinds

MESH = {"type": "Mesh", "name": "default"}
REFERENCE = {"kind": "Mesh", "proxyTypes": ["Sidecar"]}


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ({"skipCreatingInitialPolicies": ["*"]}, None),
        ({"networking": {"outbound": {"passthrough": True}}}, None),
        ({"networking": {"outbound": {"passthrough": False}}}, None),
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
        ({"routing": {"zoneEgress": True}}, "routing.zoneEgress"),
        ({"routing": {"localityAwareLoadBalancing": True}}, "routing.localityAwareLoadBalancing"),
        (
            {"metrics": {"backends": [{"name": "p", "type": "prometheus", "conf": {"aggregate": [{"port": 8080}]}}]}},
            "metrics.backends[0].conf.aggregate",
        ),
        (
            {"logging": {"backends": [{"name": "t", "type": "tcp", "conf": {"address": "10.0.0.1:514"}}]}},
            "logging.backends[0].type",
        ),
        ({"tracing": {"backends": [{"name": "z", "conf": {"url": "http://z:9411"}}]}}, "tracing.backends"),
        ({"meshServices": {"mode": "Exclusive"}}, "meshServices.mode"),
    ],
)
def test_what_has_no_effect_is_given_back_as_it_was_written_and_told(asked: Mapping[str, Any], field: str) -> None:
    resource = codec.parse({**MESH, **asked})
    assert {name: codec.to_universal(resource)[name] for name in asked} == asked
    (told,) = kinds.MESH.not_done(resource.spec)
    assert told.field == field
    assert "has no effect here" in told.reason


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"metrics": {"backend": []}}, "metrics.backend"),
        ({"metrics": {"enabledBackend": "p"}}, "metrics.enabledBackend"),
        ({"metrics": {"backends": [{"name": "p", "type": "statsd"}]}}, "metrics.backends[0].type"),
        (
            {"metrics": {"backends": [{"name": "p", "type": "prometheus", "conf": {"port": 0}}]}},
            "metrics.backends[0].conf.port",
        ),
        (
            {"metrics": {"backends": [{"name": "p", "type": "prometheus", "conf": {"path": "metrics"}}]}},
            "metrics.backends[0].conf.path",
        ),
        ({"constraints": {"dataplaneProxy": {"requirement": []}}}, "constraints.dataplaneProxy.requirement"),
        (
            {"constraints": {"dataplaneProxy": {"restrictions": [{"tags": {"a b": "c"}}]}}},
            'constraints.dataplaneProxy.restrictions[0].tags["a b"]',
        ),
        ({"netwroking": {}}, "netwroking"),
    ],
)
def test_what_would_be_unsafe_to_pass_over_is_refused_by_name(asked: Mapping[str, Any], field: str) -> None:
    with pytest.raises(InvalidResource) as refused:
        codec.parse({**MESH, **asked})
    assert [violation.field for violation in refused.value.violations] == [field]


def dataplane(**networking: Any) -> dict[str, Any]:
    return {"type": "Dataplane", "name": "d", "networking": {"address": "127.0.0.1", **networking}}


INBOUND = {"port": 80, "servicePort": 8080, "tags": {"kuma.io/service": "web"}}
PROVIDED = {"mode": "providedTLS"}
GATEWAY = {"tags": {"kuma.io/service": "kong", "team": "edge"}}
OUTBOUND = {"port": 10001, "tags": {"kuma.io/service": "web"}}


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({**dataplane(inbound=[INBOUND]), "probes": {"port": 9000, "endpoints": []}}, "probes"),
        (
            {
                **dataplane(inbound=[INBOUND]),
                "metrics": {"type": "prometheus", "conf": {"tls": {"mode": "providedTLS"}}},
            },
            "metrics.conf.tls.mode",
        ),
        (
            dataplane(
                inbound=[INBOUND], transparentProxying={"redirectPortInbound": 15006, "redirectPortInboundV6": 15016}
            ),
            "networking.transparentProxying.redirectPortInboundV6",
        ),
        (dataplane(gateway={**GATEWAY, "type": "BUILTIN"}), "networking.gateway.type"),
        (
            dataplane(inbound=[INBOUND], outbound=[{**OUTBOUND, "backendRef": {"kind": "MeshService", "name": "w"}}]),
            "networking.outbound[0].backendRef",
        ),
    ],
)
def test_parts_of_a_dataplane_that_have_no_effect_are_given_back_and_told(
    document: Mapping[str, Any], field: str
) -> None:
    resource = codec.parse(document)
    found = codec.to_universal(resource)
    assert {name: found[name] for name in document} == document
    assert [told.field for told in kinds.DATAPLANE.not_done(resource.spec)] == [field]


def test_a_delegated_gateway_is_a_proxy_with_an_identity_and_without_inbounds() -> None:
    resource = codec.parse(dataplane(gateway={**GATEWAY, "type": 0}, outbound=[OUTBOUND]))
    assert resource.spec.services == ("kong",)
    assert resource.spec.tag_values["team"] == {"edge"}
    assert codec.to_universal(resource)["networking"]["gateway"] == GATEWAY  # DELEGATED is what is meant without a type
    assert list(kinds.DATAPLANE.not_done(resource.spec)) == []


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        (
            dataplane(gateway=GATEWAY, inbound=[INBOUND]),
            "networking.inbound: inbound cannot be defined for delegated gateways",
        ),
        (
            dataplane(gateway={**GATEWAY, "type": "BUILTIN"}, outbound=[OUTBOUND]),
            "networking.outbound: outbound cannot be defined for builtin gateways",
        ),
        (dataplane(gateway={}), 'networking.gateway.tags: mandatory tag "kuma.io/service" is missing'),
        (
            dataplane(gateway={"tags": {"kuma.io/service": "kong", "kuma.io/protocol": "http"}}),
            'networking.gateway.tags["kuma.io/protocol"]: other values than tcp are not allowed, provided value "http"',
        ),
        (
            dataplane(gateway={"tags": {"kuma.io/service": "a/b"}}),
            'networking.gateway.tags["kuma.io/service"]: "a/b" cannot be part of a SPIFFE ID',
        ),
        (dataplane(), "networking: has to contain at least one inbound interface or gateway"),
    ],
)
def test_gateways_that_cannot_be(document: Mapping[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidResource) as refused:
        codec.parse(document)
    assert any(str(violation).startswith(complaint) for violation in refused.value.violations)


@pytest.mark.parametrize(
    "document",
    [
        {
            "type": "MeshTimeout",
            "mesh": "default",
            "name": "t",
            "spec": {"targetRef": {"kind": "Mesh"}, "to": [{"default": {"idleTimeout": "20s"}}]},
        },
        {
            "type": "TrafficRoute",
            "mesh": "default",
            "name": "r",
            "sources": [{"match": {"kuma.io/service": "*"}}],
            "conf": {"destination": {"kuma.io/service": "*"}},
        },
    ],
)
def test_policies_that_have_no_effect_are_given_back_as_they_were_written(document: Mapping[str, Any]) -> None:
    resource = codec.parse(document)
    found = codec.to_universal(resource)
    assert {name: found[name] for name in document} == document
    assert codec.parse(codec.to_kubernetes(resource)).spec == resource.spec
    (told,) = kinds.by_name(document["type"]).not_done(resource.spec)
    assert str(told).startswith(f"{document['type']} is stored and given back, and has no effect here: ")


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("MeshTLS", "the mode of mutual TLS stands in the Mesh"),
        ("MeshIdentity", "identities are issued by the backends of the Mesh"),
        ("ZoneIngress", "there is one zone"),
        ("MeshTimeuot", "did you mean MeshTimeout"),
    ],
)
def test_kinds_that_mean_something_else_here_are_refused_with_the_reason(kind: str, reason: str) -> None:
    with pytest.raises(InvalidResource, match=reason):
        codec.parse({"type": kind, "mesh": "default", "name": "x", "spec": {}})


def permission(target: Mapping[str, Any], source: Mapping[str, Any]) -> dict[str, Any]:
    spec = {"targetRef": target, "from": [{"targetRef": source, "default": {"action": "Allow"}}]}
    return {"type": "MeshTrafficPermission", "mesh": "default", "name": "m", "spec": spec}


def test_sidecars_are_all_the_proxies_that_there_are() -> None:
    document = permission(REFERENCE, {"kind": "MeshSubset", "proxyTypes": ["Sidecar", "Gateway"], "tags": {"a": "b"}})
    assert codec.to_universal(codec.parse(document))["spec"] == document["spec"]


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ({"kind": "MeshService", "name": "web", "proxyTypes": ["Sidecar"]}, "must not be set with kind MeshService"),
    ],
)
def test_other_proxies_are_refused(reference: Mapping[str, Any], reason: str) -> None:
    with pytest.raises(InvalidResource, match=reason):
        codec.parse(permission(reference, {"kind": "Mesh"}))
