"""A chain of CA certificates made again with other keys: what stands in them can be tried out without their keys."""

from __future__ import annotations

from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from kuma.pki.authority import LocalAuthority
from kuma.pki.pem import readable
from kuma.pki.x509 import CaPair


def authority(chain: Sequence[x509.Certificate]) -> LocalAuthority:
    """An authority like the one of `chain`, whose keys nobody else knows: for trying it out, never for issuing.

    Raises:
        AuthorityUnusable: a certificate has something that cannot be made again.
    """
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in chain]
    with readable("cannot be made again"):
        made = tuple(
            _copy(certificate, key, signer)
            for certificate, key, signer in zip(chain, keys, [*keys[1:], keys[-1]], strict=True)
        )
        return LocalAuthority("", CaPair(made[0], keys[0]), made)


def _copy(
    original: x509.Certificate, key: ec.EllipticCurvePrivateKey, signer: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    """Copies all that verifiers look at except key and signature; the identifiers of keys are kept."""
    builder = x509.CertificateBuilder(
        original.issuer,
        original.subject,
        key.public_key(),
        original.serial_number,
        original.not_valid_before_utc,
        original.not_valid_after_utc,
    )
    for extension in original.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    return builder.sign(signer, hashes.SHA256())
