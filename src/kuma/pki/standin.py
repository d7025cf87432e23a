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
    """Returns an authority like the one of `chain`, whose keys nobody else knows: for trying it out, never for issuing.

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


_OF_ANCHORS = (x509.BasicConstraints, x509.KeyUsage, x509.NameConstraints, x509.SubjectKeyIdentifier)
"""What Envoy's TLS library looks at in a root; what it is to be used for, and what it does not know, it passes over."""


def anchor(root: x509.Certificate) -> x509.Certificate:
    """Returns a root as Envoy's TLS library looks at it (RFC 5280 6.1.1 d): OpenSSL looks at more.

    The signature is another one: nobody verifies that of a root.
    """
    key = root.public_key()
    others = [extension for extension in root.extensions if not isinstance(extension.value, _OF_ANCHORS)]
    if not others or not isinstance(key, PublicKey | ed25519.Ed25519PublicKey):
        return root
    return _copy(root, key, ec.generate_private_key(ec.SECP256R1()), only=_OF_ANCHORS)


def _copy(
    original: x509.Certificate,
    key: PublicKey | ed25519.Ed25519PublicKey,
    signer: ec.EllipticCurvePrivateKey,
    *,
    only: tuple[type[x509.ExtensionType], ...] = (x509.ExtensionType,),
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
        if isinstance(extension.value, only):
            builder = builder.add_extension(extension.value, extension.critical)
    return builder.sign(signer, hashes.SHA256())
