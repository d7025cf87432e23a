"""Bad input gets an error that names the field and the remedy."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spiffe import SpiffeId

from kuma.base.errors import InvalidResource
from kuma.resources import codec, keys, kinds, tags


def mesh(backend: dict[str, Any] | None = None, **mtls: Any) -> dict[str, Any]:
    backends = [{"name": "ca-1", "type": "builtin", **(backend or {})}]
    return {"type": "Mesh", "name": "default", "mtls": {"enabledBackend": "ca-1", "backends": backends, **mtls}}


def dataplane(*inbounds: dict[str, Any], **networking: Any) -> dict[str, Any]:
    tags = {"kuma.io/service": "web"}
    entries = [{"port": 8080, "servicePort": 9090, "tags": tags, **inbound} for inbound in inbounds or ({},)]
    return {
        "type": "Dataplane", "mesh": "default", "name": "web-01",
        "networking": {"address": "127.0.0.1", "inbound": entries, **networking},
    }  # fmt: skip


def rotation(expiration: object) -> dict[str, Any]:
    return {"dpCert": {"rotation": {"expiration": expiration}}}


def ca_cert(**values: Any) -> dict[str, Any]:
    return {"conf": {"caCert": values}}


EXPIRATION = "mtls.backends[0].dpCert.rotation.expiration"
SERVICE_TAG = 'networking.inbound[0].tags["kuma.io/service"]'
FORM = 'one whole number and one unit of y, w, d, h, m, s, ms, such as "30d"'
REFUSED = [
    ("typo", mesh(backend=None, backend_typo=1), "mtls.backend_typo", "unknown field"),
    ("suggestion", {"type": "Mesh", "name": "m", "mtls": {"backend": []}}, "mtls.backend", "did you mean backends?"),
    ("compound", mesh(rotation("1h30m")), "mtls.backends[0].dpCert.rotation.expiration", "one whole number"),
    ("zero", mesh(rotation("0")), EXPIRATION, f'has to be a valid format: {FORM}; got "0"'),
    ("number 0", mesh(rotation(0)), EXPIRATION, 'has to be a number and a unit, such as "30d"; got 0'),
    ("number 5", mesh(rotation(5)), EXPIRATION, 'has to be a number and a unit, such as "30d"; got 5'),
    ("null", mesh(rotation(None)), EXPIRATION, 'has to be a number and a unit, such as "30d"; got null'),
    ("root number", mesh(ca_cert(expiration=1)), "mtls.backends[0].conf.caCert.expiration", "unit, such as"),
    ("seconds", mesh({"dpCert": {"requestTimeout": 5}}), "mtls.backends[0].dpCert.requestTimeout",
     'has to be a number of seconds that ends in "s", such as "5s"; got 5'),
    ("mode", mesh({"mode": "strict"}), "mtls.backends[0].mode", "has to be STRICT or PERMISSIVE; got strict"),
    ("state", dataplane({"state": "Up"}), "networking.inbound[0].state",
     "has to be Ready, NotReady or Ignored; got Up"),
    ("long service", dataplane({"tags": {"kuma.io/service": "s" * 242}}), SERVICE_TAG, "too long by 1 characters"),
    ("long outbound", dataplane(outbound=[{"port": 1, "tags": {"kuma.io/service": "s" * 242}}]),
     'networking.outbound[0].tags["kuma.io/service"]', "too long by 1 characters"),
    ("long outbound tags", dataplane(outbound=[{"port": 1, "tags": {"kuma.io/service": "s", "v": "x" * 240}}]),
     "networking.outbound[0].tags", "too long by 3 characters"),
    ("outbound", dataplane(outbound=[{"port": 1, "tags": {"kuma.io/service": "a/b"}}]),
     'networking.outbound[0].tags["kuma.io/service"]', "SPIFFE ID"),
    ("insight", {"type": "DataplaneInsight", "name": "x"}, "type",
     "DataplaneInsight is written by the control plane only"),
    ("transition", {"apiVersion": "kuma.io/v1alpha1", "kind": "MeshTransition", "metadata": {"name": "x"}}, "type",
     "MeshTransition is written by the control plane only"),
    ("config", {"type": "Config", "name": "x"}, "type",
     'unknown resource type "Config". Known types: Dataplane, GlobalSecret, Mesh, MeshAccessLog, '
     "MeshTrafficPermission, Secret, TrafficLog, TrafficPermission"),
    ("0d", mesh(rotation("0d")), "mtls.backends[0].dpCert.rotation.expiration", "longer than 0"),
    ("ages", mesh(rotation("101y")), "mtls.backends[0].dpCert.rotation.expiration", "100y"),
    ("small RSA", mesh(ca_cert(RSAbits=100)), "mtls.backends[0].conf.caCert.RSAbits", "between 2048 and 8192"),
    ("big RSA", mesh(ca_cert(RSAbits=100000)), "mtls.backends[0].conf.caCert.RSAbits", "between 2048 and 8192"),
    ("text RSA", mesh(ca_cert(RSAbits="2048")), "mtls.backends[0].conf.caCert.RSAbits", "whole number"),
    ("root life", mesh(ca_cert(expiration="soon")), "mtls.backends[0].conf.caCert.expiration", "valid format"),
    ("type", mesh({"type": "vault"}), "mtls.backends[0].type", "Available types: builtin"),
    ("name", mesh({"name": "CA 1"}, enabledBackend="CA 1"), "mtls.backends[0].name", "lower case"),
    ("duplicate", mesh(backends=[{"name": "a", "type": "builtin"}] * 2, enabledBackend="a"),
     "mtls.backends[1].name", '"a" name is already used for another backend'),
    ("not listed", mesh(enabledBackend="ca-2"), "mtls.enabledBackend", "has to be set to one of the backends"),
    ("other block", {"type": "Mesh", "name": "m", "routing": {"zoneEgres": True}}, "routing.zoneEgres", "zoneEgress?"),
    ("timeout", mesh({"dpCert": {"requestTimeout": "5"}}), "mtls.backends[0].dpCert.requestTimeout", "seconds"),
    ("service", dataplane({"tags": {"kuma.io/service": "a:b"}}),
     'networking.inbound[0].tags["kuma.io/service"]', "SPIFFE ID"),
    ("no service", dataplane({"tags": {"x": "y"}}),
     'networking.inbound[0].tags["kuma.io/service"]', "tag has to exist"),
    ("one port twice", dataplane({}, {}), "networking.inbound[1].port", "already taken by networking.inbound[0].port"),
    ("loop", dataplane({"servicePort": 0}), "networking.inbound[0].servicePort", "Envoy would call itself"),
    ("port", dataplane({"port": 70000}), "networking.inbound[0].port", "port must be in the range [1, 65535]"),
    ("any address", dataplane(address="0.0.0.0"), "networking.address", "must not be 0.0.0.0 or ::"),
    ("protocol", dataplane({"tags": {"kuma.io/service": "w", "kuma.io/protocol": "ftp"}}),
     'networking.inbound[0].tags["kuma.io/protocol"]', "Allowed values: grpc, http, http2, kafka, tcp"),
    ("probe", dataplane({"serviceProb": {}}), "networking.inbound[0].serviceProb", "did you mean serviceProbe?"),
    ("empty", {"type": "Dataplane", "name": "x"}, "networking", "must be defined"),
    ("permission", {"type": "TrafficPermission", "name": "x"}, "sources", "must have at least one element"),
    ("kind", {"type": "Foo", "name": "x"}, "type", 'unknown resource type "Foo"'),
    ("no kind", {"name": "x"}, "type", "is required"),
    ("base64", {"type": "Secret", "name": "x", "data": "%"}, "data", "base64"),
    ("mesh name", {"type": "Mesh", "name": "Default"}, "name", "lowercase RFC 1123"),
    ("kubernetes", {"apiVersion": "kuma.io/v1alpha1", "kind": "Mesh", "metadata": {"name": "m"},
                    "spec": {"mtls": {"backend": []}}}, "spec.mtls.backend", "did you mean backends?"),
    ("flat kubernetes", {"apiVersion": "kuma.io/v1alpha1", "kind": "Mesh", "metadata": {"name": "m"}, "mtls": {}},
     "mtls", "under spec"),
]  # fmt: skip


@pytest.mark.parametrize(("document", "field", "reason"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_refused_with_field_and_remedy(document: dict[str, Any], field: str, reason: str) -> None:
    with pytest.raises(InvalidResource) as caught:
        codec.parse(document)
    found = {violation.field: violation.reason for violation in caught.value.violations}
    assert field in found
    assert reason in found[field]


def test_of_very_many_mistakes_the_first_are_told_and_that_there_are_more() -> None:
    """Whoever sends them must not get back many times as much."""
    for document in (
        dataplane(*({"servicePor": 0, "servicePo": 0} for _ in range(100))),
        {"type": "MeshTrafficPermission", "name": "x", "spec": {"from": [{}] * 1000}},
        {"type": "Mesh", "name": "x", "labels": {f"-{number}": "" for number in range(99)} | {"-": "-"}},
    ):
        with pytest.raises(InvalidResource) as caught:
            codec.parse(document)
        *told, last = caught.value.violations
        assert len(told) == 100
        assert str(last) == "and more: these are the first 100"


def test_a_service_that_is_no_part_of_a_spiffe_id_is_told_once() -> None:
    with pytest.raises(InvalidResource) as caught:
        codec.parse(dataplane({"tags": {"kuma.io/service": "a/b"}}))
    (violation,) = caught.value.violations
    assert "cannot be part of a SPIFFE ID" in violation.reason


def test_the_longest_service_makes_a_server_name_and_an_identity_that_are_valid() -> None:
    service = "s" * 241
    found = codec.parse(dataplane({"tags": {"kuma.io/service": service}})).spec
    assert found.services == (service,)
    assert len(tags.server_name("default", {"kuma.io/service": service})) == 255
    assert str(SpiffeId(f"spiffe://default/{service}")) == f"spiffe://default/{service}"


def test_every_document_of_a_text_is_read_whatever_is_wrong_with_the_others() -> None:
    text = "{type: Mesh, name: a}\n---\njust text\n---\n---\n{a: 1, a: 2}\n---\n{? [[x]] : 1}\n---\n{name: b}\n---\n]"
    found = list(codec.numbered(text))
    assert [number for number, _ in found] == [1, 2, 4, 5, 6, 7]
    assert [str(f) for _, f in found if isinstance(f, InvalidResource)] == [
        "a resource has to be a map that begins with `type:` or `apiVersion:`",
        "a: is written twice in the map that begins at line 6",
        "is not valid YAML: while constructing a mapping, found unhashable key (line 8, column 4)",
        "is not valid YAML: while parsing a block node, expected the node content, but found ']' (line 12, column 1)",
    ]


def test_what_the_yaml_library_calls_its_input_is_not_shown() -> None:
    for text in ("type: [", "a: b: c", "\x07"):
        with pytest.raises(InvalidResource) as caught:
            list(codec.documents(text))
        assert "unicode string" not in str(caught.value)


@given(st.text())
def test_any_text_is_either_documents_or_a_clear_error(text: str) -> None:
    try:
        for document in codec.documents(text):
            codec.parse(document)
    except InvalidResource as error:
        assert str(error)


def test_a_key_written_twice_is_refused() -> None:
    with pytest.raises(InvalidResource, match="written twice"):
        list(codec.documents("type: Mesh\nname: a\nname: b\n"))


def test_a_mesh_has_no_dot_in_its_name() -> None:
    with pytest.raises(InvalidResource, match="name: must not contain a dot"):
        keys.check(kinds.MESH.key("a.b"))


def test_a_type_that_is_not_known_is_told_alone() -> None:
    """Which fields there are depends on it. What is wrong elsewhere is told all the same."""
    backends = [
        {"name": "vault-1", "type": "vault", "conf": {"fromCp": {"address": "https://vault"}}, "mdoe": "STRICT"},
        {"name": "ca-1", "type": "builtin", "conf": {"fromCp": {}}},
    ]
    with pytest.raises(InvalidResource) as refused:
        codec.parse({"type": "Mesh", "name": "default", "mtls": {"backends": backends}})
    assert [violation.field for violation in refused.value.violations] == [
        "mtls.backends[0].type", "mtls.backends[1].conf.fromCp",
    ]  # fmt: skip


@pytest.mark.parametrize("data", ["aGVs\nbG8=\n", "aGVs\r\nbG8=", "aGVsbG8=\n"])
def test_line_ends_inside_base64_mean_nothing(data: str) -> None:
    found = codec.parse({"type": "Secret", "mesh": "default", "name": "s", "data": data})
    assert found.spec.data == b"hello"


@pytest.mark.parametrize(
    ("data", "said"),
    [("aGVs bG8=", "has to be base64 of the bytes"), ("-----BEGIN CERTIFICATE-----\nMIIB", "inlineString")],
)
def test_what_is_no_base64(data: str, said: str) -> None:
    with pytest.raises(InvalidResource, match=said):
        codec.parse({"type": "Secret", "mesh": "default", "name": "s", "data": data})


def test_texts_that_would_take_long_to_read_are_answered() -> None:
    """The work for a map or a number grows with its size, not with the square of it."""
    many = "\n".join(f"k{number}: 1" for number in range(10_000))
    assert len(next(codec.documents(many))) == 10_000
    with pytest.raises(InvalidResource, match="has an integer of 599999 characters"):
        next(codec.documents("a: 1" + ":1" * 299_999))


@pytest.mark.parametrize(
    "document",
    [
        {"type": "Mesh", "name": "x", "metrics": {"backends": [{"name": "\ud800"}]}},
        {"type": "TrafficRoute", "mesh": "default", "name": "x", "conf": {"\udfff": None}},
        {"type": "MeshTimeout", "mesh": "default", "name": "x", "spec": {"to": ["\ud800"]}},
    ],
)
def test_no_text_is_kept_that_could_not_be_given_back(document: dict[str, Any]) -> None:
    with pytest.raises(InvalidResource, match="half of a surrogate pair"):
        codec.parse(document)
