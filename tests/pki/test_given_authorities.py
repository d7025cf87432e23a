"""CAs as people have them: what is taken and what is refused, with the true reason."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from kuma.pki import ca_requirements, pem, trial
from kuma.pki.authority import AuthorityUnusable, LocalAuthority
from kuma.pki.x509 import CaPair
from kuma.resources.models.mesh import Backend

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
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
