"""CAs that users provide: what is taken, what is refused, and what is warned of."""

import base64
import subprocess
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from spiffe import X509Svid

from kuma.admission.mesh_rules import MeshRules
from kuma.admission.secret_rules import SecretRules
from kuma.authorities import registry
from kuma.base.clock import SystemClock
from kuma.base.errors import InvalidResource
from kuma.pki import ca_requirements, issuer, pem
from kuma.resources import codec, kinds
from kuma.resources.masks import masked
from kuma.resources.models.mesh import DEFAULT_LEAF_LIFETIME
from kuma.resources.models.secret import SecretSpec
from kuma.resources.resource import Resource
from kuma.store.manager import ResourceManager
from kuma.store.sql.embedded.sqlite import open_sqlite
from tests.fakes import cas
from tests.fakes.cas import Ca, on_curve, with_extensions
from tests.fakes.keys import NUMBERS, armoured, pkcs1

REFERENCE = Path(__file__).with_name("reference-chain.pem")
CA, SIGN = "basicConstraints=CA:TRUE", "keyUsage=keyCertSign,cRLSign"
ANY_LENGTH = with_extensions(CA, SIGN)
UNKNOWN_CURVES = ("secp112r1", "prime239v1", "brainpoolP320t1", "SM2")
"""To the library that reads certificates."""


@pytest.fixture
async def manager(tmp_path: Path) -> AsyncIterator[ResourceManager]:
    store = await open_sqlite(tmp_path / "kuma.db", SystemClock())
    found = ResourceManager(store, {"Mesh": MeshRules(SystemClock()), "Secret": SecretRules(SystemClock())})
    await found.put(codec.parse({"type": "Mesh", "name": "default"}))
    yield found
    await store.close()


def secret(name: str, text: str) -> Resource[Any]:
    return Resource(kinds.SECRET.key(name, "default"), SecretSpec(data=text.encode()))


def mesh(conf: dict[str, Any] | None = None, field: str = "conf", **backend: Any) -> Resource[Any]:
    conf = conf if conf is not None else {"cert": {"secret": "cert"}, "key": {"secret": "key"}}
    listed = {"name": "ca-1", "type": "provided", field: conf, **backend}
    return codec.parse({"type": "Mesh", "name": "default", "mtls": {"enabledBackend": "ca-1", "backends": [listed]}})


async def provide(manager: ResourceManager, ca: Ca) -> tuple[str, ...]:
    """Apply a CA as the reference does it: the two Secrets, then the Mesh. Returns the warnings about the CA."""
    await manager.put(secret("cert", ca.cert))
    await manager.put(secret("key", ca.key))
    outcome = await manager.put(mesh(dpCert={"rotation": {"expiration": "1d"}}))
    return tuple(warning for warning in outcome.warnings if "TrafficPermission" not in warning)


async def refusal(manager: ResourceManager, ca: Ca) -> str:
    """Why a CA is refused; nothing of the Mesh is stored then."""
    with pytest.raises(InvalidResource) as caught:
        await provide(manager, ca)
    assert not (await manager.get(kinds.MESH.key("default"))).spec.mtls
    assert "PRIVATE" not in str(caught.value)
    return str(caught.value)


async def test_the_references_own_example_is_taken_as_it_stands(manager: ResourceManager, tmp_path: Path) -> None:
    assert await provide(manager, cas.root(tmp_path, "Hello")) == ()


def test_the_references_own_chain_is_one() -> None:
    chain = pem.read_chain(REFERENCE.read_bytes())
    assert [certificate.subject.rfc4514_string().split(",")[0] for certificate in chain] == [
        "CN=KumaIntermediateCA", "CN=KumaCA",
    ]  # fmt: skip
    assert not list(ca_requirements.violations("cert", chain, datetime(2022, 1, 1, tzinfo=UTC)))


async def test_secrets_have_to_exist_first(manager: ResourceManager) -> None:
    with pytest.raises(InvalidResource) as refused:
        await manager.put(mesh())
    assert {violation.field: violation.reason for violation in refused.value.violations} == {
        f"mtls.backends[0].conf.{part}": (
            f'could not load data: Resource not found: type="Secret" name="{part}" mesh="default"'
        )
        for part in ("cert", "key")
    }


async def test_both_may_be_in_one_secret(manager: ResourceManager, tmp_path: Path) -> None:
    """The reference's example names one and the same Secret twice."""
    ca = cas.root(tmp_path, "root")
    await manager.put(secret("name-of-secret", ca.cert + ca.key))
    await manager.put(mesh({"cert": {"secret": "name-of-secret"}, "key": {"secret": "name-of-secret"}}))


@pytest.mark.parametrize("field", ["conf", "config"])
async def test_inline_with_a_warning(manager: ResourceManager, tmp_path: Path, field: str) -> None:
    ca = cas.root(tmp_path, "root")
    conf = {name: {"inline": base64.b64encode(text.encode()).decode()} for name, text in vars(ca).items()}
    outcome = await manager.put(mesh(conf, field))
    assert any("private key is given inline" in warning for warning in outcome.warnings)
    assert any("is taken for conf; write conf" in warning for warning in outcome.warnings) == (field == "config")


async def test_an_inline_key_is_masked_and_applying_what_is_shown_keeps_it(
    manager: ResourceManager, tmp_path: Path
) -> None:
    ca = cas.root(tmp_path, "root")
    stored = (await manager.put(mesh({"cert": {"inlineString": ca.cert}, "key": {"inlineString": ca.key}}))).resource
    shown = stored.with_spec(masked(stored.spec))
    assert "PRIVATE" not in str(codec.to_universal(shown))
    again = await manager.put(codec.parse(codec.to_universal(shown)))
    assert again.resource == stored
    assert b"PRIVATE" not in b"".join(path.read_bytes() for path in tmp_path.glob("kuma.db*"))


async def test_files_on_the_control_planes_machine(manager: ResourceManager, tmp_path: Path) -> None:
    cas.root(tmp_path, "root")
    await manager.put(mesh({"cert": {"file": f"{tmp_path}/root.crt"}, "key": {"file": f"{tmp_path}/root.key"}}))
    for file, reason in (
        (f"{tmp_path}/none", "No such file"), ("/dev/zero", "is not a file"), ("\0", "null"),
        (f"{tmp_path}", "is not a file"),
    ):  # fmt: skip
        with pytest.raises(InvalidResource, match=f"on the control plane's machine: .*{reason}"):
            await manager.put(mesh({"cert": {"file": file}, "key": {"file": f"{tmp_path}/root.key"}}))


@pytest.mark.parametrize(
    ("extensions", "reason"),
    [
        (["basicConstraints=CA:FALSE", SIGN], "basic constraint 'CA' must be set to 'true' (see X509-SVID: 4.1."),
        ([SIGN], "basic constraint 'CA' must be set to 'true'"),
        ([CA, "keyUsage=cRLSign"], "key usage extension 'keyCertSign' must be set (see X509-SVID: 4.3. Key Usage)"),
        ([CA], "key usage extension 'keyCertSign' must be set"),
        ([CA, "keyUsage=keyCertSign,keyAgreement"], "key usage extension 'keyAgreement' must NOT be set"),
    ],
)
async def test_what_a_ca_must_be(manager: ResourceManager, tmp_path: Path, extensions: list[str], reason: str) -> None:
    found = await refusal(manager, cas.root(tmp_path, "root", with_extensions(*extensions)))
    assert f"mtls.backends[0].conf.cert[0]: {reason}" in found


async def test_what_a_ca_should_not_be(manager: ResourceManager, tmp_path: Path) -> None:
    usage = "keyUsage=keyCertSign,digitalSignature,keyEncipherment"
    found = await provide(manager, cas.root(tmp_path, "root", with_extensions(CA, usage)))
    assert [warning.split(" SHOULD")[0] for warning in found] == [
        "mtls.backends[0].conf.cert[0]: key usage extension 'digitalSignature'",
        "mtls.backends[0].conf.cert[0]: key usage extension 'keyEncipherment'",
    ]


async def test_a_ca_that_ends_too_soon_is_warned_of(manager: ResourceManager, tmp_path: Path) -> None:
    (warning,) = await provide(manager, cas.root(tmp_path, "root", days="1")) or ("",)
    assert "before the certificates that it issues would" in warning


@pytest.mark.parametrize(("year", "reason"), [(2042, "ended at 2031-05-10T13:35:51Z"), (2020, "is not valid before")])
def test_a_ca_has_its_time(year: int, reason: str) -> None:
    found = ca_requirements.violations("cert", pem.read_chain(REFERENCE.read_bytes()), datetime(year, 1, 1, tzinfo=UTC))
    assert any(reason in violation.reason for violation in found)


@pytest.mark.parametrize(
    ("algorithm", "reason"),
    [
        (("rsa:1024",), "its RSA key of 1024 bits is too weak; at least 2048 are needed"),
        (on_curve("P-224"), "its curve secp224r1 is not one that Envoy takes; use P-256, P-384 or P-521"),
        (on_curve("secp256k1"), "its curve secp256k1 is not one that Envoy takes"),
        (on_curve("brainpoolP256r1"), "its curve brainpoolP256r1 is not one that Envoy takes"),
        *((on_curve(name), "cert[0]: not a valid x509 certificate") for name in UNKNOWN_CURVES),
        (("ed448",), "has to be RSA, ECDSA or Ed25519"),
    ],
)
async def test_keys_that_are_not_taken(
    manager: ResourceManager, tmp_path: Path, algorithm: tuple[str, ...], reason: str
) -> None:
    assert reason in await refusal(manager, cas.root(tmp_path, "root", ANY_LENGTH, algorithm))


async def test_a_key_that_is_not_the_certificates(manager: ResourceManager, tmp_path: Path) -> None:
    one, two = cas.root(tmp_path, "one"), cas.root(tmp_path, "two")
    assert "cert: not a valid TLS key pair" in await refusal(manager, Ca(one.cert, two.key))
    switched = "cert: not a valid TLS key pair: tls: failed to find certificate PEM data in certificate input, but did"
    assert switched in await refusal(manager, Ca(one.key, one.key))
    no_key = "cert: not a valid TLS key pair: tls: found a certificate rather than a key in the PEM"
    assert no_key in await refusal(manager, Ca(one.cert, one.cert))


def chain(directory: Path, extensions: str = ANY_LENGTH) -> tuple[Ca, Ca]:
    """A chain of two CAs under a root, closest first; and the root."""
    root = cas.root(directory, "root", ANY_LENGTH)
    upper = cas.intermediate(directory, "upper", "root", extensions)
    lower = cas.intermediate(directory, "lower", "upper")
    return Ca(lower.cert + upper.cert + root.cert, lower.key), root


@pytest.mark.parametrize("with_root", [True, False])
async def test_whoever_holds_only_the_root_verifies_a_leaf(
    manager: ResourceManager, tmp_path: Path, with_root: bool
) -> None:
    ca, root = chain(tmp_path)
    if not with_root:
        ca = Ca(ca.cert.removesuffix(root.cert), ca.key)
    await provide(manager, ca)
    secrets = {s.name: s for s in (await manager.list("Secret", "default")).items}
    (backend,) = (await manager.get(kinds.MESH.key("default"))).spec.mtls.backends
    authority = registry.STANDARD.of(backend).open("default", backend, secrets)
    identity = await issuer.issue(authority, ("spiffe://default/web",), DEFAULT_LEAF_LIFETIME, SystemClock().now())
    (tmp_path / "leaf.pem").write_bytes(identity.chain_pem)
    (tmp_path / "bundle.pem").write_bytes(authority.roots_pem)
    if with_root:
        assert authority.roots_pem.decode() == root.cert
    anchor = ["-CAfile", "bundle.pem"] if with_root else ["-partial_chain", "-CAfile", "bundle.pem"]
    command = ["openssl", "verify", *anchor, "-untrusted", "leaf.pem", "leaf.pem"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert str(X509Svid.parse(identity.chain_pem, identity.key_pem).spiffe_id) == "spiffe://default/web"


async def test_a_chain_in_the_wrong_order(manager: ResourceManager, tmp_path: Path) -> None:
    ca, root = chain(tmp_path)
    lower, upper = ca.cert.removesuffix(root.cert).split("-----END CERTIFICATE-----\n")[:2]
    parts = [f"{part}-----END CERTIFICATE-----\n" for part in (lower, upper)]
    found = await refusal(manager, Ca(parts[0] + root.cert + parts[1], ca.key))
    assert "cert[0]: is not signed by the certificate after it" in found
    assert "place the closest CA first" in found


async def test_a_path_length_that_forbids_the_chain(manager: ResourceManager, tmp_path: Path) -> None:
    ca, _ = chain(tmp_path, with_extensions("basicConstraints=CA:TRUE,pathlen:0", SIGN))
    assert "cert[1]: its pathlen of 0 forbids the 1 CA certificates that come before it" in await refusal(manager, ca)


@pytest.mark.parametrize(
    ("conf", "field", "reason"),
    [
        ({}, "conf.cert", "has to be defined"),
        ({"cert": {}, "key": {"secret": "k"}}, "conf.cert", "data source has to be chosen"),
        ({"cert": {"secret": "c", "file": "f"}, "key": {"secret": "k"}}, "conf.cert", "only one data source"),
        ({"cert": {"secret": ""}, "key": {"secret": "k"}}, "conf.cert.secret", "cannot be empty"),
        ({"cert": {"inline": "%"}, "key": {"secret": "k"}}, "conf.cert.inline", "base64"),
        ({"cert": {"secrte": "x"}, "key": {"secret": "k"}}, "conf.cert.secrte", "did you mean secret?"),
        (
            {"caCert": {"RSAbits": 2048}, "cert": {"secret": "c"}, "key": {"secret": "k"}},
            "conf.caCert",
            "is of the type",
        ),
    ],
)
def test_what_the_mesh_says_of_a_provided_ca(conf: dict[str, Any], field: str, reason: str) -> None:
    with pytest.raises(InvalidResource) as caught:
        mesh(conf)
    assert any(v.field == f"mtls.backends[0].{field}" and reason in v.reason for v in caught.value.violations)


ODD_EXTENSIONS = {
    "x400Address": "2.5.29.17=DER:30:04:A3:02:30:00",
    "ediPartyName": "2.5.29.17=DER:30:06:A5:04:A1:02:0C:00",
    "a broken SAN": "2.5.29.17=DER:05:00",
}
"""That a certificate cannot be read with."""


async def test_a_ca_may_call_its_key_what_it_likes(manager: ResourceManager, tmp_path: Path) -> None:
    """Not all makers hash it with SHA-1 (RFC 7093): leaves name their issuer's key as the issuer does."""
    named = with_extensions(CA, SIGN, "subjectKeyIdentifier=01:02:03")
    assert await provide(manager, cas.root(tmp_path, "root", named)) == ()


@pytest.mark.parametrize("extension", ODD_EXTENSIONS.values(), ids=list(ODD_EXTENSIONS))
async def test_extensions_that_cannot_be_read(manager: ResourceManager, tmp_path: Path, extension: str) -> None:
    odd = cas.root(tmp_path, "root", with_extensions(CA, SIGN, extension))
    assert "cert[0]: not a valid x509 certificate: " in await refusal(manager, odd)


@pytest.mark.parametrize("at", [0, 1, 2])
async def test_the_place_of_a_damaged_certificate_is_told(manager: ResourceManager, tmp_path: Path, at: int) -> None:
    ca, _ = chain(tmp_path)
    parts = ca.cert.split("-----BEGIN CERTIFICATE-----\n")[1:]
    parts[at] = parts[at][5:]
    damaged = "".join(f"-----BEGIN CERTIFICATE-----\n{part}" for part in parts)
    assert f"conf.cert[{at}]: not a valid x509 certificate" in await refusal(manager, Ca(damaged, ca.key))


async def test_half_a_certificate_is_not_passed_over(manager: ResourceManager, tmp_path: Path) -> None:
    ca, root = chain(tmp_path)
    cut = ca.cert.removesuffix(root.cert) + root.cert[:500]
    assert "conf.cert[2]: not a valid x509 certificate" in await refusal(manager, Ca(cut, ca.key))


@pytest.mark.parametrize("digest", ["sha1", "md5"])
async def test_an_intermediate_with_a_weak_signature(manager: ResourceManager, tmp_path: Path, digest: str) -> None:
    root = cas.root(tmp_path, "root", ANY_LENGTH)
    lower = cas.intermediate(tmp_path, "lower", "root", digest=digest)
    found = await refusal(manager, Ca(lower.cert + root.cert, lower.key))
    expected = f"its signature is made with {digest.upper()}, which verifiers refuse; have it signed with SHA-256"
    assert found == f"mtls.backends[0].conf.cert[0]: {expected}"


@pytest.mark.parametrize(
    ("extension", "reason"),
    [
        ("nameConstraints=permitted;URI:.example.com", "permitted subtree violation"),
        ("nameConstraints=excluded;URI:default", "excluded subtree violation"),
    ],
)
async def test_a_ca_whose_certificates_would_not_verify(
    manager: ResourceManager, tmp_path: Path, extension: str, reason: str
) -> None:
    found = await refusal(manager, cas.root(tmp_path, "root", with_extensions(CA, SIGN, extension)))
    assert f"the certificates that it issues, such as for spiffe://default/x, do not verify: {reason}" in found


@pytest.mark.parametrize(
    "extension",
    [
        "nameConstraints=permitted;URI:default",
        "extendedKeyUsage=serverAuth,clientAuth",
        "extendedKeyUsage=codeSigning",
        "extendedKeyUsage=serverAuth",
        "1.2.3.4=critical,DER:05:00",
    ],
)
async def test_constraints_that_fit_are_taken(manager: ResourceManager, tmp_path: Path, extension: str) -> None:
    assert await provide(manager, cas.root(tmp_path, "root", with_extensions(CA, SIGN, extension))) == ()


@pytest.mark.parametrize("algorithm", [*map(on_curve, ("P-256", "P-384", "P-521")), ("rsa:3072",), ("ed25519",)])
async def test_keys_that_are_taken(manager: ResourceManager, tmp_path: Path, algorithm: tuple[str, ...]) -> None:
    assert await provide(manager, cas.root(tmp_path, "root", ANY_LENGTH, algorithm)) == ()


async def test_a_very_long_chain_and_a_huge_key_are_refused_before_they_are_read(
    manager: ResourceManager, tmp_path: Path
) -> None:
    ca, small = cas.root(tmp_path, "long"), cas.root(tmp_path, "small", ANY_LENGTH)
    damaged = small.cert + "-----BEGIN CERTIFICATE-----\n%%%\n-----END CERTIFICATE-----\n" * 699
    huge = armoured(pkcs1(NUMBERS, p=1 << 16383)).decode()
    wide = "-----BEGIN CERTIFICATE-----\n" + "A" * 20_000 + "\n-----END CERTIFICATE-----\n"
    for cert, key, reason in (
        (damaged, ca.key, "700 certificates in certificate input; 10 are the most"),
        (wide, ca.key, "characters in certificate input; 16,384 are the most"),
        (ca.cert, huge, "the RSA key of 16384 bits is too large; use 8192 at most"),
    ):
        await manager.put(secret("cert", cert))
        await manager.put(secret("key", key))
        with pytest.raises(InvalidResource, match=reason):
            await manager.put(mesh())
