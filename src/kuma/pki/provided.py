"""The `provided` backend: certificate and key come from the user, in Secrets, files, or the Mesh itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from kuma.base.errors import Violation
from kuma.pki.authority import Authority, AuthorityUnusable, LocalAuthority
from kuma.pki.x509 import CaPair, PrivateKey
from kuma.resources.mesh import Backend, DataSource
from kuma.resources.resource import Resource
from kuma.resources.secret import SecretSpec

Secrets = Mapping[str, Resource[SecretSpec]]
WEAKEST_RSA, WEAKEST_CURVE = 2048, 256
"""Bits."""


def used_secrets(backend: Backend) -> tuple[str, ...]:
    """The Secrets that a backend refers to."""
    sources = (backend.settings.cert, backend.settings.key)
    return tuple(dict.fromkeys(source.secret for source in sources if source and source.secret))


def load(source: DataSource, mesh: str, secrets: Secrets) -> bytes:
    """What a data source holds.

    Raises:
        AuthorityUnusable: the Secret does not exist, or the file cannot be read.
    """
    if source.secret is not None:
        if source.secret not in secrets:
            raise AuthorityUnusable(
                f'could not load data: there is no Secret "{source.secret}" in mesh "{mesh}"; apply it first'
            )
        return secrets[source.secret].spec.data
    if source.file is not None:
        try:
            return Path(source.file).read_bytes()
        except OSError as error:
            raise AuthorityUnusable(
                f"could not load data: {source.file} on the control plane's machine: {error.strerror}"
            ) from None
    return source.inline if source.inline is not None else (source.inline_string or "").encode()


def content(mesh: str, backend: Backend, secrets: Secrets) -> tuple[bytes, bytes]:
    """Certificates and key as they are given.

    Raises:
        AuthorityUnusable: one cannot be loaded.
    """
    conf = backend.settings
    assert conf.cert is not None and conf.key is not None  # the Mesh was validated
    return load(conf.cert, mesh, secrets), load(conf.key, mesh, secrets)


def open_authority(mesh: str, backend: Backend, secrets: Secrets) -> Authority:
    """The authority that a backend describes.

    Raises:
        AuthorityUnusable: it cannot be loaded, or certificate and key do not belong together.
    """
    cert, key_pem = content(mesh, backend, secrets)
    chain, key = parse_chain(cert), parse_key(key_pem)
    if chain[0].public_key() != key.public_key():
        raise AuthorityUnusable("not a valid TLS key pair: the private key is not that of the first certificate")
    return LocalAuthority(backend.name, CaPair(chain[0], key), chain)


def parse_chain(pem: bytes) -> Sequence[x509.Certificate]:
    """The certificates in `pem`, the issuing one first.

    Raises:
        AuthorityUnusable: there are none, or one cannot be read.
    """
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise AuthorityUnusable("not a valid x509 certificate: no certificate in PEM, or a damaged one") from None


def parse_key(pem: bytes) -> PrivateKey:
    """The private key in `pem`.

    Raises:
        AuthorityUnusable: there is none of a kind that can be used.
    """
    try:
        key = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError):
        raise AuthorityUnusable("not a valid private key: has to be an unencrypted key in PEM") from None
    if not isinstance(key, PrivateKey):
        raise AuthorityUnusable("not a valid private key: has to be RSA, ECDSA or Ed25519")
    return key


def violations(path: str, chain: Sequence[x509.Certificate], now: datetime) -> Iterator[Violation]:
    """What forbids a chain from issuing; `path` is the field that holds it."""
    for index, certificate in enumerate(chain):
        field = f"{path}[{index}]"
        yield from _ca_rules(field, certificate, index)
        if certificate.not_valid_after_utc <= now:
            yield Violation(field, f"ended at {certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}; give a newer one")
        if certificate.not_valid_before_utc > now:
            yield Violation(field, f"is not valid before {certificate.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ}")
        yield from _strength(field, certificate)
    for index, (lower, upper) in enumerate(pairwise(chain)):
        if not _signed(lower, upper):
            yield Violation(
                f"{path}[{index}]",
                f"is not signed by the certificate after it, {path}[{index + 1}]: place the closest CA first, then "
                "the others in order up the chain",
            )


def _ca_rules(field: str, certificate: x509.Certificate, below: int) -> Iterator[Violation]:
    """X509-SVID §4; `below` is the number of CA certificates under this one."""
    constraints, usage = _extension(certificate, x509.BasicConstraints), _extension(certificate, x509.KeyUsage)
    if constraints is None or not constraints.ca:
        yield Violation(field, "basic constraint 'CA' must be set to 'true' (see X509-SVID: 4.1. Basic Constraints)")
    elif constraints.path_length is not None and constraints.path_length < below:
        yield Violation(
            field, f"its pathlen of {constraints.path_length} forbids the {below} CA certificates that come before it"
        )
    if usage is None or not usage.key_cert_sign:
        yield Violation(field, "key usage extension 'keyCertSign' must be set (see X509-SVID: 4.3. Key Usage)")
    if usage is not None and usage.key_agreement:
        yield Violation(
            field,
            "key usage extension 'keyAgreement' must NOT be set (see X509-SVID: Appendix A. X.509 Field Reference)",
        )


def _strength(field: str, certificate: x509.Certificate) -> Iterator[Violation]:
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < WEAKEST_RSA:
        yield Violation(field, f"its RSA key of {key.key_size} bits is too weak; at least {WEAKEST_RSA} are needed")
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.key_size < WEAKEST_CURVE:
        yield Violation(field, f"its curve {key.curve.name} is too weak; P-256 is the least")


def warnings(path: str, chain: Sequence[x509.Certificate], backend: Backend, now: datetime) -> Iterator[str]:
    """What a chain should not be, and may."""
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
    end = min(certificate.not_valid_after_utc for certificate in chain)
    if end < now + backend.leaf_lifetime:
        yield (
            f"{path}: the CA ends at {end:%Y-%m-%dT%H:%M:%SZ}, before the certificates that it issues would: "
            "they are cut short. Provide another CA in time"
        )


def _extension(certificate: x509.Certificate, kind: type[x509.ExtensionType]) -> Any:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except (x509.ExtensionNotFound, ValueError):
        return None


def _signed(lower: x509.Certificate, upper: x509.Certificate) -> bool:
    try:
        lower.verify_directly_issued_by(upper)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True
