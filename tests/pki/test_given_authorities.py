"""CAs as people have them: what is taken and what is refused, with the true reason."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from kuma.pki import ca_requirements, pem, trial
from kuma.pki.authority import AuthorityUnusable, LocalAuthority
from kuma.pki.x509 import CaPair, is_self_signed
from kuma.resources.models.mesh import Backend
from tests.fakes import cas

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
CA = cas.with_extensions(
    "basicConstraints=critical,CA:TRUE", "keyUsage=keyCertSign,cRLSign", "subjectKeyIdentifier=hash",
    "authorityKeyIdentifier=keyid",
)  # fmt: skip
LONG = NOW + dt.timedelta(days=3650)
EKU = {
    "any": ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
    "server": ExtendedKeyUsageOID.SERVER_AUTH,
    "code signing": ExtendedKeyUsageOID.CODE_SIGNING,
}


class Made:
    """A CA certificate and its key."""

    def __init__(self, subject: str, signer: Made | None = None, *, eku: str = "", pathlen: int | None = None) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        name, key = _name(subject), signer.key if signer else self.key
        builder = x509.CertificateBuilder(
            signer.certificate.subject if signer else name, name, self.key.public_key(), x509.random_serial_number(),
            NOW - dt.timedelta(days=1), LONG,
        )  # fmt: skip
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        for extension, critical in (
            (x509.BasicConstraints(True, pathlen), True),
            (usage, True),
            (x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), False),
            (x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), False),
            *([(x509.ExtendedKeyUsage([EKU[eku]]), False)] if eku else []),
        ):
            builder = builder.add_extension(extension, critical)
        self.certificate: x509.Certificate = builder.sign(key, hashes.SHA256())

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)] if common else [])


def authority(chain: Sequence[Made], key: Made) -> LocalAuthority:
    certificates = pem.read_chain(b"".join(made.pem for made in chain))
    pem.check_chain(certificates, pem.read_key(key.key_pem))
    return LocalAuthority("own", CaPair(certificates[0], key.key), certificates)


def refusals(chain: Sequence[x509.Certificate]) -> list[str]:
    return [str(violation) for violation in ca_requirements.violations("cert", chain, NOW)]


async def test_a_self_issued_intermediate_is_no_root() -> None:
    """RFC 5280 3.2: self-issued is not self-signed. Both have the same name here."""
    root = Made("cluster.local")
    below = Made("cluster.local", root, pathlen=0)
    found = authority([below, root], below)
    assert found.roots_pem == root.pem
    await trial.check("default", found, NOW)
    assert refusals([below.certificate, root.certificate]) == []


def test_a_root_is_told_by_its_own_signature_and_name(tmp_path: Path) -> None:
    root = Made("root")
    assert is_self_signed(root.certificate)
    assert not is_self_signed(Made("below", root).certificate)
    assert not is_self_signed(Made("root", root).certificate)
    # One that does not say by which key it was signed is no root for that.
    cas.root(tmp_path, "top", CA)
    below = cas.intermediate(tmp_path, "below", "top", cas.with_extensions("authorityKeyIdentifier=none"))
    (silent,) = pem.read_chain(below.cert.encode())
    assert x509.AuthorityKeyIdentifier.oid not in {extension.oid for extension in silent.extensions}
    assert not is_self_signed(silent)


def test_self_issued_certificates_do_not_count_for_the_length_of_a_path() -> None:
    """RFC 5280 4.2.1.9."""
    root = Made("one", pathlen=0)
    assert refusals([Made("one", root).certificate, root.certificate]) == []
    (refused,) = refusals([Made("two", root).certificate, root.certificate])
    assert "cert[1]: its pathlen of 0 forbids the 1 CA certificates" in refused


async def test_a_copy_in_a_chain_is_dropped() -> None:
    root = Made("root", pathlen=1)
    below = Made("below", root, pathlen=0)
    found = authority([below, below, root, root], below)
    assert found.roots_pem == root.pem
    await trial.check("default", found, NOW)
    assert refusals(pem.read_chain(below.pem + below.pem + root.pem)) == []


def test_a_root_first_is_told_by_its_place() -> None:
    root = Made("root")
    below = Made("below", root)
    with pytest.raises(
        AuthorityUnusable, match=r"private key does not match public key: it belongs to cert\[1\]; place"
    ):
        authority([root, below], below)
    with pytest.raises(AuthorityUnusable, match=r"private key does not match public key$"):
        authority([root, below], Made("other"))


def test_the_signature_of_an_old_root_is_looked_at_by_nobody(tmp_path: Path) -> None:
    """MD5 is verified by no library any more; a root is believed for its key, and is told by the ids of its keys."""
    root = cas.root(tmp_path, "old", CA, ("rsa:2048", "-md5"))
    certificates = pem.read_chain(root.cert.encode())
    assert [str(one) for one in ca_requirements.violations("cert", certificates, dt.datetime.now(dt.UTC))] == []
    (tmp_path / "below").mkdir()
    below = cas.intermediate(tmp_path / "below", "old", "../old", CA, digest="md5")
    chain = pem.read_chain((below.cert + root.cert).encode())
    pair = CaPair(chain[0], pem.read_key(below.key.encode()))
    assert LocalAuthority("own", pair, chain).roots_pem == root.cert.encode()
    (refused,) = ca_requirements.violations("cert", chain, dt.datetime.now(dt.UTC))
    assert "cert[0]: its signature is made with MD5" in str(refused)


def block(label: str) -> bytes:
    return f"-----BEGIN {label}-----\nMAA=\n-----END {label}-----\n".encode()


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (b"", "failed to find any PEM data in certificate input"),
        (block("PRIVATE KEY"), "did find a private key; PEM inputs may have been switched"),
        (block("PRIVATE KEY") * 2, 'failed to find "CERTIFICATE" PEM block in certificate input'),
        (block("DH PARAMETERS"), 'failed to find "CERTIFICATE" PEM block in certificate input'),
        (b"-----BEGIN CERTIFICATE-----\n%%%\n-----END CERTIFICATE-----\n", "the PEM is damaged"),
        (block("CERTIFICATE"), "not a valid x509 certificate"),
    ],
)
def test_a_text_without_certificates_is_told_for_what_it_is(given: bytes, reason: str) -> None:
    with pytest.raises(AuthorityUnusable) as caught:
        pem.read_chain(given)
    assert reason in str(caught.value)
    assert ("damaged" in str(caught.value)) == ("damaged" in reason)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (b"", "failed to find any PEM data in key input"),
        (block("CERTIFICATE"), "found a certificate rather than a key in the PEM"),
        (block("DH PARAMETERS"), 'failed to find PEM block with type ending in "PRIVATE KEY" in key input'),
    ],
)
def test_a_text_without_a_key_is_told_for_what_it_is(given: bytes, reason: str) -> None:
    with pytest.raises(AuthorityUnusable) as caught:
        pem.read_key(given)
    assert reason in str(caught.value)


@pytest.mark.parametrize("eku", EKU)
async def test_what_a_root_says_of_its_use_is_looked_at_by_nobody(eku: str) -> None:
    """RFC 5280 6.1.1 d: a trust anchor is a name and a key. Envoy goes by that, too."""
    root = Made("root", eku=eku)
    await trial.check("default", authority([root], root), NOW)
    below = Made("below", root)
    await trial.check("default", authority([below, root], below), NOW)


@pytest.mark.parametrize("eku", EKU)
async def test_what_an_intermediate_says_of_its_use_counts(eku: str) -> None:
    root = Made("root")
    below = Made("below", root, eku=eku)
    with pytest.raises(AuthorityUnusable, match="do not verify"):
        await trial.check("default", authority([below, root], below), NOW)


def test_a_ca_without_a_subject_is_warned_of() -> None:
    root, nameless = Made("root"), Made("")
    backend = Backend(name="own", type="provided")
    (warning,) = ca_requirements.warnings("cert", [nameless.certificate], backend, NOW)
    assert "cert[0]: has no subject" in warning
    assert list(ca_requirements.warnings("cert", [root.certificate], backend, NOW)) == []


@pytest.mark.parametrize(
    ("mangle", "said"),
    [
        (lambda text: text.replace("\n", "\\n"), r"has the characters \n in place of line ends"),
        (lambda text: text.replace("\n", "\\r\\n"), r"has the characters \r\n in place of line ends"),
        (lambda text: "\n".join(f"> {line}" for line in text.splitlines()), 'has "> " before its lines'),
        (lambda text: f'"{text.strip()}"', None),
        (lambda text: '"' + text.replace("\n", "\\n") + '"', r"has the characters \n in place of line ends"),
        (lambda text: text.replace("\n", "\r\n"), None),
        (lambda text: "\n".join(f"    {line}" for line in text.splitlines()), None),
    ],
    ids=[
        "backslash n",
        "backslash r n",
        "quoted mail",
        "quotes",
        "quoted backslash n",
        "crlf",
        "indented",
    ],
)
def test_pem_that_went_through_other_hands(mangle: object, said: str | None) -> None:
    """Taken if it can be read, else refused in our own words, without a word of it."""
    assert callable(mangle)
    made = Made("root")
    for read, text, what in ((pem.read_chain, made.pem, "certificate"), (pem.read_key, made.key_pem, "key")):
        mangled = mangle(text.decode()).encode()
        try:
            read(mangled)
        except AuthorityUnusable as error:
            assert said is not None, str(error)
            assert said in str(error), what
            assert "cryptography" not in str(error)
        else:
            assert said is None, what
