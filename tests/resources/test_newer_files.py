"""Files of other versions of the original: what they say is done, taken with a warning, or refused in words."""

from __future__ import annotations

from typing import Any

import pytest

from kuma.base.errors import InvalidResource, NotForUs
from kuma.resources import codec, kinds
from kuma.resources.resource import Resource


def parsed(text: str) -> Resource[Any]:
    (document,) = codec.documents(text)
    return codec.parse(document)


def told(found: Resource[Any]) -> list[str]:
    """The fields of which it is said that they have no effect."""
    return [violation.field for violation in kinds.by_name(found.key.kind).not_done(found.spec)]


NEWER = """
type: Dataplane
mesh: default
name: shop-1
labels: {LABEL: shop, version: v2}
networking:
  address: 10.2.0.3
  inbound: [{port: 8080, servicePort: 8081, protocol: http}]
  outbound:
  - {port: 3333, backendRef: {kind: MeshService, labels: {kuma.io/display-name: redis}, port: 6379}}
  - {port: 3334, backendRef: {kind: MeshService, name: store, port: 80}}
  - {port: 3335, backendRef: {kind: MeshExternalService, name: payments, port: 443}}
"""


@pytest.mark.parametrize("label", ["kuma.io/service", "kuma.io/workload"])
def test_services_are_named_by_labels_and_references(label: str) -> None:
    found = parsed(NEWER.replace("LABEL", label))
    assert found.spec.services == ("shop",)
    assert found.spec.net.inbound[0].protocol == "http"
    assert [(outbound.port, outbound.service) for outbound in found.spec.net.calls] == [
        (3333, "redis"),
        (3334, "store"),
    ]
    assert told(found) == ["networking.outbound[2].backendRef"], "nobody listens there"
    shown = codec.to_universal(found)
    assert shown["networking"]["outbound"][2] == {
        "port": 3335,
        "backendRef": {"kind": "MeshExternalService", "name": "payments", "port": 443},
    }
    assert codec.parse(shown).spec == found.spec


def test_tags_that_are_written_stay() -> None:
    found = parsed(
        "{type: Dataplane, name: a, labels: {kuma.io/workload: other}, networking: {address: 10.0.0.1, "
        "inbound: [{port: 80, servicePort: 81, tags: {kuma.io/service: own}}], "
        "outbound: [{port: 90, tags: {kuma.io/service: db}, backendRef: {kind: MeshService, name: cache}}]}}"
    )
    assert found.spec.services == ("own",)
    assert [outbound.service for outbound in found.spec.net.calls] == ["db"]
    assert told(found) == ["networking.outbound[0].backendRef"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("inbound: [{port: 80, servicePort: 81}]", "or a label of the Dataplane"),
        ("inbound: [{port: 80, servicePort: 81, protocol: http, tags: no}]", "has to be a map"),
        ("inbound: [{port: 80, servicePort: 81, tags: {kuma.io/service: a}, protocol: ftp}]", "Allowed values"),
        (
            "inbound: [{port: 80, servicePort: 81, tags: {kuma.io/service: a, kuma.io/protocol: tcp}, protocol: http}]",
            'is "http", and the tag kuma.io/protocol "tcp"',
        ),
        ("inbound: [{port: 80, tags: {kuma.io/service: a}}]", "or serviceAddress to 127.0.0.1"),
        ("inbound: [{interface: '10.0.0.1:80:81', tags: {service: a}}]", "before version 0.6"),
        (
            "inbound: [{port: 80, servicePort: 81, tags: {kuma.io/service: a}}], outbound: [{port: 9, service: b}]",
            "0.6",
        ),
        ("listeners: [{type: ZoneIngress, port: 10001, name: zi}]", "there is one zone"),
        ("ingress: {publicAddress: 10.0.0.1}, inbound: [{port: 1, tags: {kuma.io/service: i}}]", "there is one zone"),
        ("metrics: {type: prometheus}", "stands beside networking"),
    ],
)
def test_what_is_wrong_with_a_dataplane_is_told_in_words(text: str, words: str) -> None:
    with pytest.raises(InvalidResource) as caught:
        parsed(f"{{type: Dataplane, name: a, networking: {{address: 10.0.0.1, {text}}}}}")
    assert words in str(caught.value)


@pytest.mark.parametrize("family", ["IPv4", "ipv4", 2])
def test_in_front_of_a_transparent_proxy_one_port_will_do(family: str | int) -> None:
    found = parsed(
        "{type: Dataplane, name: a, networking: {address: 10.0.0.1, inbound: [{port: 80, tags: {kuma.io/service: a}}], "
        f"transparentProxying: {{redirectPortInbound: 15006, redirectPortOutbound: 15001, ipFamilyMode: {family}}}}}}}"
    )
    assert found.spec.net.redirected.ip_family_mode == "IPv4"


def test_ports_of_one_workload_have_to_be_named_one_by_one() -> None:
    """Callers would be sent to any of them if all took the name of the Dataplane."""
    with pytest.raises(InvalidResource) as caught:
        parsed(
            "{type: Dataplane, name: a, labels: {kuma.io/workload: a}, networking: {address: 10.0.0.1, "
            "inbound: [{port: 80, servicePort: 81}, {port: 90, servicePort: 91}]}}"
        )
    assert [violation.field for violation in caught.value.violations] == [
        f'networking.inbound[{index}].tags["kuma.io/service"]' for index in (0, 1)
    ]


@pytest.mark.parametrize("field", ["spiffeID", "spiffeId"])
def test_both_spellings_of_spiffe_id_are_read(field: str) -> None:
    found = parsed(
        f"{{type: MeshTrafficPermission, name: a, spec: {{rules: [{{default: {{allow: [{{{field}: "
        "{type: Exact, value: 'spiffe://default/web'}}]}}]}}"
    )
    assert list(found.spec.statements("default")) == [("Allow", {"kuma.io/service": "web"})]
    assert codec.to_universal(found)["spec"]["rules"][0]["default"]["allow"][0].keys() == {"spiffeID"}


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("default: {allow: [{sni: {type: Exact, value: x}}]}", "are for zone proxies"),
        ("matches: [{spiffeID: {type: Exact, value: 'spiffe://default/a'}}], default: {action: Deny}", "under default"),
    ],
)
def test_rules_of_other_versions_are_refused_in_words(rule: str, words: str) -> None:
    """To pass over a part of what selects callers would admit others."""
    with pytest.raises(InvalidResource) as caught:
        parsed(f"{{type: MeshTrafficPermission, name: a, spec: {{rules: [{{{rule}}}]}}}}")
    assert words in str(caught.value)


def test_access_logs_of_some_callers_are_taken_and_nothing_is_written_for_them() -> None:
    found = parsed(
        "{type: MeshAccessLog, name: a, spec: {rules: [{matches: [{spiffeID: {type: Exact, value: 'spiffe://a/b'}}], "
        "default: {backends: [{type: File, file: {path: /dev/stdout}}]}}]}}"
    )
    assert told(found) == ["rules[0].matches"]


@pytest.mark.parametrize("kind", ["MeshOPA", "OPAPolicy", "AccessRole", "AccessRoleBinding", "MeshIdentity"])
def test_kinds_that_refuse_callers_are_not_passed_over(kind: str) -> None:
    with pytest.raises(InvalidResource, match="is not implemented here: ") as caught:
        parsed(f"{{type: {kind}, name: a, spec: {{}}}}")
    assert not isinstance(caught.value, NotForUs)


@pytest.mark.parametrize("kind", ["Workload", "MeshGatewayInstance", "MeshGlobalRateLimit", "MeshOpenTelemetryBackend"])
def test_kinds_that_mean_nothing_here_are_left_out(kind: str) -> None:
    with pytest.raises(NotForUs):
        parsed(f"{{apiVersion: kuma.io/v1alpha1, kind: {kind}, metadata: {{name: a}}, spec: {{}}}}")


def test_what_newer_clients_print_can_be_applied() -> None:
    found = parsed("{type: Mesh, name: default, kri: kri_m____default_, creationTime: '2026-09-23T10:42:26Z'}")
    assert codec.as_declared(found) == {"type": "Mesh", "name": "default"}


@pytest.mark.parametrize(
    ("text", "words"),
    [("{mtls: {enabled: true, ca: {builtin: {}}}}", "before version 0.4"), ("{metrics: {prometheus: {}}}", "0.5")],
)
def test_meshes_of_old_versions_are_told_apart_from_typing_errors(text: str, words: str) -> None:
    (content,) = codec.documents(text)
    with pytest.raises(InvalidResource) as caught:
        codec.parse({"type": "Mesh", "name": "default", **content})
    assert words in str(caught.value)
