"""X.509 certificates of the mesh: roots and leaves, as the SPIFFE X.509-SVID standard and RFC 5280 want them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from kuma.pki import spiffe

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
"""What an authority may sign with."""
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey

BACKDATED = timedelta(hours=1)
"""Certificates begin this long before they are made: clocks differ, and RFC 5280 §4.1.2.5 leaves the begin to the CA.

As public CAs do; a machine whose clock is further behind has other troubles.
"""


@dataclass(frozen=True, slots=True)
class CaPair:
    """A CA certificate and its private key."""

    certificate: x509.Certificate
    key: PrivateKey = field(repr=False)


def is_self_issued(certificate: x509.Certificate) -> bool:
    """Tells whether subject and issuer are the same (RFC 5280 §3.2)."""
    return certificate.subject == certificate.issuer


def is_self_signed(certificate: x509.Certificate) -> bool:
    """Tells whether a certificate's own key has signed it: only then is it a root, whatever names it has."""
    if not is_self_issued(certificate):
        return False
    try:
        certificate.verify_directly_issued_by(certificate)
    except InvalidSignature:
        return False
    except Exception:  # a digest or curve that the library verifies no more, each with an error of its own
        return _authority_key(certificate) in (None, _subject_key(certificate))
    return True


def _authority_key(certificate: x509.Certificate) -> bytes | None:
    try:
        found = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
    except x509.ExtensionNotFound:
        return None
    return found.value.key_identifier


def _subject_key(certificate: x509.Certificate) -> bytes | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    except x509.ExtensionNotFound:
        return None


def build_root(mesh: str, key: PrivateKey, now: datetime, lifetime: timedelta) -> x509.Certificate:
    """Builds a self-signed root of the trust domain `mesh`, to sign leaves only (X.509-SVID §4, RFC 5280 §4.2.1)."""
    begin = now - min(BACKDATED, lifetime / 10)  # a short life stays about as long as it is asked to be
    name = x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Kuma"), x509.NameAttribute(NameOID.COMMON_NAME, mesh)]
    )
    public = key.public_key()
    return (
        x509.CertificateBuilder(name, name, public, x509.random_serial_number(), begin, now + lifetime)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage("key_cert_sign", "crl_sign"), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(spiffe.trust_domain_id(mesh))]), critical=False
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(key, _digest(key))
    )


class LeafBuilder:
    """Builds the leaves of one issuer; what is equal in all of them is made once."""

    def __init__(self, issuer: CaPair) -> None:
        self._issuer = issuer
        self._authority = _authority_identifier(issuer.certificate)

    def build(self, key: PublicKey, uris: Sequence[str], not_before: datetime, not_after: datetime) -> x509.Certificate:
        """Builds a leaf for `key` with `uris` and no subject, so that its names are critical (RFC 5280 §4.2.1.6)."""
        usage = _RSA_USAGE if isinstance(key, rsa.RSAPublicKey) else _EC_USAGE
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris])
        return (
            x509.CertificateBuilder(
                self._issuer.certificate.subject, _NO_SUBJECT, key, x509.random_serial_number(), not_before, not_after
            )
            .add_extension(usage, critical=True)
            .add_extension(_EXTENDED_USAGE, critical=False)
            .add_extension(_NO_CA, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(self._authority, critical=False)
            .add_extension(names, critical=True)
            .sign(self._issuer.key, _digest(self._issuer.key))
        )


def _authority_identifier(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """Returns the issuer's own identifier of its key, because verifiers compare the two (RFC 5280 §4.2.1.1)."""
    try:
        named = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        key = issuer.public_key()
        assert isinstance(key, PublicKey | ed25519.Ed25519PublicKey)  # there is an authority for no other one
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(key)
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(named)


def _digest(key: PrivateKey) -> hashes.SHA256 | None:
    """Returns the digest of a signature; Ed25519 brings its own (RFC 8410)."""
    return None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()


def usage(*allowed: str) -> x509.KeyUsage:
    """Key usage with just what is named."""
    names = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
        "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    return x509.KeyUsage(**{name: name in allowed for name in names})


_NO_SUBJECT = x509.Name([])
_NO_CA = x509.BasicConstraints(ca=False, path_length=None)
_EC_USAGE = usage("digital_signature")
_RSA_USAGE = usage("digital_signature", "key_encipherment")
_EXTENDED_USAGE = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])


def certificate_pem(certificate: x509.Certificate) -> bytes:
    """Returns the certificate in PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def key_pem(key: PrivateKey) -> bytes:
    """Returns the key in PEM (PKCS#8), unencrypted: for a Secret, which is sealed, or for the proxy whose key it is."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
