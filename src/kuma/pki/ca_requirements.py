"""Requirements on a chain of CA certificates: X.509-SVID §4, and what Envoys can verify."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from kuma.base.errors import Violation
from kuma.base.tls import private_keys
from kuma.pki import pem
from kuma.pki.authority import AuthorityUnusable
from kuma.pki.x509 import is_self_issued, is_self_signed
from kuma.resources.models.mesh import Backend

WEAKEST_RSA, LARGEST_RSA = 2048, private_keys.LARGEST_RSA
"""Bits."""
CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
WEAK_DIGESTS = (hashes.MD5, hashes.SHA1)


def violations(path: str, chain: Sequence[x509.Certificate], now: datetime) -> Iterator[Violation]:
    """Returns what forbids a chain from issuing; `path` is the field that holds it."""
    for index, certificate in enumerate(chain):
        field = f"{path}[{index}]"
        yield from _ca_rules(field, certificate, sum(not is_self_issued(lower) for lower in chain[:index]))
        if certificate.not_valid_after_utc <= now:
            yield Violation(field, f"ended at {certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}; give a newer one")
        if certificate.not_valid_before_utc > now:
            yield Violation(field, f"is not valid before {certificate.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ}")
        yield from _strength(field, certificate)
    for index, (lower, upper) in enumerate(pairwise(chain)):
        if not _is_signed_weakly(lower) and not _signed(lower, upper):
            yield Violation(
                f"{path}[{index}]",
                f"is not signed by the certificate after it, {path}[{index + 1}]: place the closest CA first, then "
                "the others in order up the chain",
            )


def _ca_rules(field: str, certificate: x509.Certificate, below: int) -> Iterator[Violation]:
    """X509-SVID §4; `below` is the number of CA certificates under this one that count (RFC 5280 4.2.1.9)."""
    constraints, usage = _extension(certificate, x509.BasicConstraints), _extension(certificate, x509.KeyUsage)
    if constraints is None or not constraints.ca:
        yield Violation(field, "basic constraint 'CA' must be set to 'true' (see X509-SVID: 4.1. Basic Constraints)")
    elif constraints.path_length is not None and constraints.path_length < below:
        yield Violation(
            field, f"its pathlen of {constraints.path_length} forbids the {below} CA certificates that come before it"
        )
    if usage is None or not usage.key_cert_sign:
        yield Violation(field, f"{_NO_SIGNING}. {_RECIPE}" if usage is None else _NO_SIGNING)
    if usage is not None and usage.key_agreement:
        yield Violation(
            field,
            "key usage extension 'keyAgreement' must NOT be set (see X509-SVID: Appendix A. X.509 Field Reference)",
        )


_NO_SIGNING = "key usage extension 'keyCertSign' must be set (see X509-SVID: 4.3. Key Usage)"
_RECIPE = (
    "It has no key usage at all, as `openssl req -x509` makes it: make it anew with "
    "-addext keyUsage=critical,keyCertSign,cRLSign, or see docs/concepts/authorities.md, `Your own CA`"
)


def _strength(field: str, certificate: x509.Certificate) -> Iterator[Violation]:
    """Keys and digests that Envoy's TLS takes, and that are not too weak."""
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size < WEAKEST_RSA:
            yield Violation(field, f"its RSA key of {key.key_size} bits is too weak; at least {WEAKEST_RSA} are needed")
        if key.key_size > LARGEST_RSA:
            yield Violation(
                field, f"its RSA key of {key.key_size} bits is too large for Envoy; use {LARGEST_RSA} at most"
            )
    elif isinstance(key, ec.EllipticCurvePublicKey):
        if not isinstance(key.curve, CURVES):
            yield Violation(field, f"its curve {key.curve.name} is not one that Envoy takes; use P-256, P-384 or P-521")
    elif not isinstance(key, ed25519.Ed25519PublicKey):
        yield Violation(field, "its key is of a kind that Envoy does not take; use RSA, ECDSA or Ed25519")
    if _is_signed_weakly(certificate):
        digest = certificate.signature_hash_algorithm
        assert digest is not None
        yield Violation(
            field,
            f"its signature is made with {digest.name.upper()}, which verifiers refuse; have it signed with SHA-256",
        )


def _is_signed_weakly(certificate: x509.Certificate) -> bool:
    """Tells whether a weak signature would be verified; nobody verifies that of a root."""
    return isinstance(certificate.signature_hash_algorithm, WEAK_DIGESTS) and not is_self_signed(certificate)


def warnings(path: str, chain: Sequence[x509.Certificate], backend: Backend, now: datetime) -> Iterator[str]:
    """Returns what is allowed in a chain but not advised."""
    for index, certificate in enumerate(chain):
        usage = _extension(certificate, x509.KeyUsage)
        for name, is_set in (
            ("digitalSignature", usage is not None and usage.digital_signature),
            ("keyEncipherment", usage is not None and usage.key_encipherment),
        ):
            if is_set:
                yield (
                    f"{path}[{index}]: key usage extension '{name}' SHOULD NOT be set "
                    "(see X509-SVID: Appendix A. X.509 Field Reference)"
                )
        if not list(certificate.subject):
            yield (
                f"{path}[{index}]: has no subject, so what it signs has an empty issuer, which RFC 5280 forbids "
                "(4.1.2.4, 4.1.2.6) and some verifiers refuse. Give the CA a name"
            )
    end = min(certificate.not_valid_after_utc for certificate in chain)
    if end < now + backend.leaf_lifetime:
        yield (
            f"{path}: the CA ends at {end:%Y-%m-%dT%H:%M:%SZ}, before the certificates that it issues would: "
            "they are cut short. Provide another CA in time"
        )


def _extension(certificate: x509.Certificate, kind: type[x509.ExtensionType]) -> Any:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _signed(lower: x509.Certificate, upper: x509.Certificate) -> bool:
    try:
        with pem.readable(""):
            lower.verify_directly_issued_by(upper)
    except AuthorityUnusable:
        return False
    return True
