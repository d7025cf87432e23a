"""The original's rules, word for word: clients and people know its fields and messages.

Where ours say more, or something else, the row has ours, and `docs/compatibility.md` says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from kuma.base.errors import InvalidResource
from kuma.resources import codec, kinds
from kuma.store.manager import ResourceManager
from tests.api.test_api import manager  # noqa: F401
from tests.fakes import cas
from tests.fakes.cas import with_extensions

Document = Mapping[str, Any]
CA, SIGN = "basicConstraints=CA:TRUE", "keyUsage=keyCertSign"
F = "mtls.backends[0].conf"
INBOUND, OUTBOUND = "networking.inbound[0]", "networking.outbound[0]"
BAD_PORT, BAD_IP = "port must be in the range [1, 65535]", "has to be valid IP address"
NAME = (
    "invalid characters. A lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or "
    "'.', and must start and end with an alphanumeric character"
)
VALUE = "tag value must consist of alphanumeric characters, dots, dashes and underscores"
NO_SECRET = 'could not load data: Resource not found: type="Secret" name="x" mesh="default"'
SOURCES = "data source has to be chosen. Available sources: secret, file, inline, inlineString"


def mesh(backend: Document | None = None, name: str = "default", **mtls: Any) -> Document:
    backends = [{"name": "ca-1", "type": "builtin", **(backend or {})}]
    return {"type": "Mesh", "name": name, "mtls": {"backends": backends, **mtls}}


def provided(cert: Any, key: Any) -> Document:
    conf = {name: source for name, source in (("cert", cert), ("key", key)) if source is not None}
    return mesh({"type": "provided", "conf": conf})


def dataplane(inbound: Document | None = None, **networking: Any) -> Document:
    entry = {"port": 8080, "servicePort": 9090, "tags": {"kuma.io/service": "web"}, **(inbound or {})}
    return {
        "type": "Dataplane", "mesh": "default", "name": "web-01",
        "networking": {"address": "10.0.0.1", "inbound": [entry], **networking},
    }  # fmt: skip


def tagged(**tags: str) -> Document:
    return dataplane({"tags": {"kuma.io/service": "web", **tags}})


def calling(**outbound: Any) -> Document:
    return dataplane(outbound=[{"port": 1, "tags": {"kuma.io/service": "db"}, **outbound}])


Case = tuple[Document | Callable[[Path], Document], str, str]
STATIC: dict[str, Case] = {
    "1.3 duplicate": (
        mesh(backends=[{"name": "a", "type": "builtin"}] * 2),
        "mtls.backends[1].name", '"a" name is already used for another backend',
    ),
    "1.3 enabled": (
        mesh(enabledBackend="no"), "mtls.enabledBackend", "has to be set to one of the backends in the mesh"
    ),
    "1.3 expiration": (
        mesh({"dpCert": {"rotation": {"expiration": "x"}}}), "mtls.backends[0].dpCert.rotation.expiration",
        "has to be a valid format: one whole number and one unit of y, w, d, h, m, s, ms, such as "
        '"30d"; got "x"',
    ),
    "1.5 long mesh": (mesh(name="a" * 64), "name", "cannot be longer than 63 characters"),
    "1.5 name": (mesh(name="A"), "name", NAME),
    "1.5 type": (
        mesh({"type": "no"}), "mtls.backends[0].type",
        'could not find installed plugin for this type: "no". Available types: builtin, provided',
    ),
    "1.5 no mesh": ({**dataplane(), "mesh": "other"}, "mesh", "mesh of name other is not found"),
    "1.7 no cert": (provided(None, {"secret": "x"}), f"{F}.cert", "has to be defined"),
    "1.7 no key": (provided({"secret": "x"}, None), f"{F}.key", "has to be defined"),
    "1.7 cert source": (provided({}, {"secret": "x"}), f"{F}.cert", SOURCES),
    "1.7 key source": (provided({"secret": "x"}, {}), f"{F}.key", SOURCES),
    "1.7 cert secret": (provided({"secret": ""}, {"secret": "x"}), f"{F}.cert.secret", "cannot be empty"),
    "1.7 key secret": (provided({"secret": "x"}, {"secret": ""}), f"{F}.key.secret", "cannot be empty"),
    "1.7 inline": (provided({"inline": ""}, {"secret": "x"}), f"{F}.cert.inline", "cannot be empty"),
    "1.7 file": (provided({"file": ""}, {"secret": "x"}), f"{F}.cert.file", "cannot be empty"),
    "1.7 not loaded, cert": (provided({"secret": "x"}, {"secret": "x"}), f"{F}.cert", NO_SECRET),
    "1.7 not loaded, key": (provided({"secret": "x"}, {"secret": "x"}), f"{F}.key", NO_SECRET),
    "6.2 networking": ({"type": "Dataplane", "mesh": "default", "name": "w"}, "networking", "must be defined"),
    "6.2 nothing": (
        {**dataplane(), "networking": {"address": "10.0.0.1"}}, "networking",
        "has to contain at least one inbound interface or gateway"
    ),
    "6.2 no address": (dataplane(address=""), "networking.address", "address can't be empty"),
    "6.2 any address": (dataplane(address="::"), "networking.address", "must not be 0.0.0.0 or ::"),
    "6.2 address": (
        dataplane(address="a b"), "networking.address",
        "address has to be valid IP address or domain name",
    ),
    "6.2 zone of an address": (
        dataplane(address="fe80::1%eth0"), "networking.address",
        "address has to be valid IP address or domain name",
    ),
    "6.2 port": (dataplane({"port": 0}), f"{INBOUND}.port", BAD_PORT),
    "6.2 servicePort": (dataplane({"servicePort": 65536}), f"{INBOUND}.servicePort", BAD_PORT),
    "6.2 outbound port": (calling(port=65536), f"{OUTBOUND}.port", BAD_PORT),
    "6.2 serviceAddress": (
        dataplane({"serviceAddress": "10.0.0.256"}), f"{INBOUND}.serviceAddress",
        f"serviceAddress {BAD_IP} or domain name",  # the original takes no host names here
    ),
    "6.2 same": (
        dataplane({"serviceAddress": "10.0.0.1", "servicePort": 8080}), f"{INBOUND}.serviceAddress",
        "serviceAddress and servicePort has to differ from address and port",
    ),
    "6.2 same without port": (
        dataplane({"serviceAddress": "10.0.0.1", "servicePort": 0}), f"{INBOUND}.serviceAddress",
        "serviceAddress and servicePort has to differ from address and port",
    ),
    "6.2 same as its own": (
        dataplane({"address": "10.0.0.2", "serviceAddress": "10.0.0.2", "servicePort": 8080}),
        f"{INBOUND}.serviceAddress", "serviceAddress and servicePort has to differ from address and port",
    ),
    "6.2 inbound address": (dataplane({"address": "x"}), f"{INBOUND}.address", f"address {BAD_IP}"),
    "6.2 no service": (dataplane({"tags": {}}), f'{INBOUND}.tags["kuma.io/service"]', "tag has to exist"),
    "6.2 protocol": (
        tagged(**{"kuma.io/protocol": "x"}), f'{INBOUND}.tags["kuma.io/protocol"]',
        'tag "kuma.io/protocol" has an invalid value "x". Allowed values: grpc, http, http2, kafka, tcp',
    ),
    "6.2 tag name": (
        tagged(**{"a b": "c"}), f'{INBOUND}.tags["a b"]',
        "tag name must consist of alphanumeric characters, dots, dashes, slashes and underscores",
    ),
    "6.2 empty tag name": (tagged(**{"": "c"}), f"{INBOUND}.tags", "tag name must be non-empty"),
    "6.2 tag value": (tagged(a="b c"), f'{INBOUND}.tags["a"]', VALUE),
    "6.2 empty tag value": (tagged(a=""), f'{INBOUND}.tags["a"]', "tag value must be non-empty"),
    "6.2 outbound address": (calling(address="x"), f"{OUTBOUND}.address", f"address {BAD_IP}"),
    "6.2 outbound tags": (calling(tags={}), f"{OUTBOUND}.tags", 'mandatory tag "kuma.io/service" is missing'),
    "6.2 outbound service": (
        calling(tags={"kuma.io/service": "a:b"}), f'{OUTBOUND}.tags["kuma.io/service"]',
        '"a:b" cannot be part of a SPIFFE ID; use letters, digits, dots, dashes and underscores only',
    ),
}  # fmt: skip


def inline(cert: str, key: str) -> Document:
    return provided({"inlineString": cert}, {"inlineString": key})


def ca_with(*extensions: str) -> Callable[[Path], Document]:
    def made(directory: Path) -> Document:
        ca = cas.root(directory, "root", with_extensions(*extensions))
        return inline(ca.cert, ca.key)

    return made


def mismatched(directory: Path) -> Document:
    return inline(cas.root(directory, "one").cert, cas.root(directory, "two").key)


def chain_of(second: str) -> Callable[[Path], Document]:
    """A good CA, and something after it."""

    def made(directory: Path) -> Document:
        ca = cas.root(directory, "root", with_extensions(CA, SIGN))
        return inline(f"{ca.cert}-----BEGIN CERTIFICATE-----\n{second}\n-----END CERTIFICATE-----\n", ca.key)

    return made


PAIR = "not a valid TLS key pair: tls: "
MADE: dict[str, Case] = {
    "1.7 no PEM": (inline("x", "y"), f"{F}.cert", f"{PAIR}failed to find any PEM data in certificate input"),
    "1.7 no pair": (mismatched, f"{F}.cert", f"{PAIR}private key does not match public key"),
    "1.7 no CA": (
        ca_with("basicConstraints=CA:FALSE", SIGN), f"{F}.cert[0]",
        "basic constraint 'CA' must be set to 'true' (see X509-SVID: 4.1. Basic Constraints)",
    ),
    "1.7 keyCertSign": (
        ca_with(CA, "keyUsage=cRLSign"), f"{F}.cert[0]",
        "key usage extension 'keyCertSign' must be set (see X509-SVID: 4.3. Key Usage)",
    ),
    "1.7 keyAgreement": (
        ca_with(CA, "keyUsage=keyCertSign,keyAgreement"), f"{F}.cert[0]",
        "key usage extension 'keyAgreement' must NOT be set (see X509-SVID: Appendix A. X.509 Field Reference)",
    ),
    "1.7 damaged": (
        chain_of("MAA="), f"{F}.cert[1]",
        "not a valid x509 certificate: error parsing asn1 value",
    ),
}  # fmt: skip
CASES = {**STATIC, **MADE}


@pytest.mark.parametrize(("given", "field", "message"), CASES.values(), ids=list(CASES))
async def test_field_and_message(
    manager: ResourceManager,  # noqa: F811
    tmp_path: Path,
    given: Document | Callable[[Path], Document],
    field: str,
    message: str,
) -> None:
    await manager.put(codec.parse({"type": "Mesh", "name": "default"}))
    document = given(tmp_path) if callable(given) else given
    with pytest.raises(InvalidResource) as caught:
        await manager.put(codec.parse(document))
    found = [(v.field, v.reason) for v in caught.value.violations]
    assert (field, message) in found


async def test_fields_and_messages_of_deletions(manager: ResourceManager) -> None:  # noqa: F811
    await manager.put(codec.parse(mesh()))
    await manager.put(codec.parse(dataplane()))
    secret = "default.ca-builtin-cert-ca-1"
    in_use = (
        f'The secret "{secret}" that you are trying to remove is currently in use in Mesh "default" in mTLS backend '
        '"ca-1". Please remove the reference from the "ca-1" backend before removing the secret.'
    )
    attached = "unable to delete mesh, there are still some dataplanes attached"
    for key, expected in (
        (kinds.SECRET.key(secret, "default"), ("name", in_use)),
        (kinds.MESH.key("default"), ("mesh", attached)),
    ):
        with pytest.raises(InvalidResource) as caught:
            await manager.delete(key)
        assert [(v.field, v.reason) for v in caught.value.violations] == [expected]


@pytest.mark.parametrize(("number", "mode"), [(0, "STRICT"), (1, "PERMISSIVE")])
def test_modes_may_be_written_as_numbers(number: int, mode: str) -> None:
    assert codec.parse(mesh({"mode": number})).spec.mtls.backends[0].mode == mode


@pytest.mark.parametrize("mode", [2, -1, True, "strict", "1", None])
def test_other_modes_are_refused(mode: object) -> None:
    with pytest.raises(InvalidResource, match=r"mtls.backends\[0].mode"):
        codec.parse(mesh({"mode": mode}))


@pytest.mark.parametrize("name", ["a..b", "a.-b", "a-.b", ".a", "-a", "a-", "a.", "a" * 48, "a." + "b" * 62, "A", "_"])
async def test_backend_names_that_make_no_name_of_a_secret_are_refused(name: str) -> None:
    with pytest.raises(InvalidResource, match=r"mtls.backends\[0].name"):
        codec.parse(mesh({"name": name}))


@pytest.mark.parametrize("name", ["a", "a.b", "ca-1", "1", "a" * 47, "a." + "b" * 61])
async def test_backend_names_make_names_of_secrets(manager: ResourceManager, name: str) -> None:  # noqa: F811
    await manager.put(codec.parse(mesh({"name": name})))
    for secret in (await manager.list("Secret", "default")).items:
        codec.parse(codec.to_universal(secret))
