"""A chain of CA certificates made again with other keys: what stands in them can be tried out without their keys."""

from __future__ import annotations

from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from kuma.pki.authority import LocalAuthority
from kuma.pki.pem import readable
from kuma.pki.x509 import CaPair, PublicKey


def authority(chain: Sequence[x509.Certificate]) -> LocalAuthority:
    """An authority like the one of `chain`, whose keys nobody else knows: for trying it out, never for issuing.

    Raises:
        AuthorityUnusable: a certificate has something that cannot be made again.
    """
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in chain]
    with readable("cannot be made again"):
        made = tuple(
            _copy(certificate, key.public_key(), signer)
            for certificate, key, signer in zip(chain, keys, [*keys[1:], keys[-1]], strict=True)
        )
        return LocalAuthority("", CaPair(made[0], keys[0]), made)


def anchor(root: x509.Certificate) -> x509.Certificate:
    """A root as Envoy's TLS library looks at it: what it may be used for is not asked of what is trusted as it stands.

    OpenSSL asks. Everything else is as it was, but the signature, which nobody verifies (RFC 5280 6.1.1 d).
    """
    if not any(isinstance(extension.value, x509.ExtendedKeyUsage) for extension in root.extensions):
        return root
    key = root.public_key()
    if not isinstance(key, PublicKey | ed25519.Ed25519PublicKey):
        return root
    signer = ec.generate_private_key(ec.SECP256R1())
    return _copy(root, key, signer, without=x509.ExtendedKeyUsage)


def _copy(
    original: x509.Certificate,
    key: PublicKey | ed25519.Ed25519PublicKey,
    signer: ec.EllipticCurvePrivateKey,
    *,
    without: type[x509.ExtensionType] | None = None,
) -> x509.Certificate:
    """Copies all that verifiers look at except key and signature; the identifiers of keys are kept."""
    builder = x509.CertificateBuilder(
        original.issuer,
        original.subject,
        key,
        original.serial_number,
        original.not_valid_before_utc,
        original.not_valid_after_utc,
    )
    for extension in original.extensions:
        if without is not None and isinstance(extension.value, without):
            continue
        builder = builder.add_extension(extension.value, extension.critical)
    return builder.sign(signer, hashes.SHA256())
