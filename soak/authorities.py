"""CAs that a user would provide, and leaves under any CA whose key is known, to try whom a proxy still trusts."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from demo.traffic import REQUEST
from kuma.pki.ssl_context import show
from kuma.pki.x509 import CaPair, LeafBuilder, certificate_pem, key_pem, usage

_LIFETIME = timedelta(days=60)
_TIMEOUT = 5.0


@dataclass(frozen=True)
class Provided:
    """Content of the two Secrets of a provided CA."""

    chain: bytes
    key: bytes

    @property
    def root(self) -> bytes:
        """The topmost certificate: whoever trusts it trusts every intermediate under it."""
        return certificate_pem(x509.load_pem_x509_certificates(self.chain)[-1])


class Root:
    """A root of a user's own, and intermediates under it."""

    def __init__(self, name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        self._certificate = _ca(self._name, self._name, self._key, self._key, path_length=1)

    def itself(self) -> Provided:
        return Provided(certificate_pem(self._certificate), key_pem(self._key))

    def intermediate(self, name: str) -> Provided:
        """Another intermediate under this root, with the chain up to it."""
        key = ec.generate_private_key(ec.SECP256R1())
        made = _ca(_name(name), self._name, key, self._key, path_length=0)
        return Provided(certificate_pem(made) + certificate_pem(self._certificate), key_pem(key))


def is_let_in(port: int, authority: Provided, spiffe_id: str) -> bool:
    """Tells whether the proxy at a port of the loopback admits a caller with a leaf of this CA."""
    context = _client(authority, spiffe_id)
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT) as plain,
            context.wrap_socket(plain) as secured,
        ):
            secured.sendall(REQUEST)
            return bool(secured.recv(100))
    except OSError:
        return False


def takes_plaintext(port: int) -> bool:
    """Tells whether the proxy at a port of the loopback passes on plaintext."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT) as plain:
            plain.sendall(REQUEST)
            return bool(plain.recv(100))
    except OSError:
        return False


def _client(authority: Provided, spiffe_id: str) -> ssl.SSLContext:
    certificates = x509.load_pem_x509_certificates(authority.chain)
    signing = serialization.load_pem_private_key(authority.key, None)
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    issuer = CaPair(certificates[0], signing)  # type: ignore[arg-type]
    leaf = LeafBuilder(issuer).build(key.public_key(), [spiffe_id], now - timedelta(minutes=1), now + _LIFETIME / 2)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # whom it trusts is looked at, not who it is
    context.set_alpn_protocols(["kuma"])
    show(context, certificate_pem(leaf) + b"".join(map(certificate_pem, certificates[:-1])) + key_pem(key))
    return context


def _ca(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, signing: ec.EllipticCurvePrivateKey, *,
    path_length: int,
) -> x509.Certificate:  # fmt: skip
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder(
            issuer, subject, key.public_key(), x509.random_serial_number(), now - timedelta(minutes=1), now + _LIFETIME
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(usage("key_cert_sign", "crl_sign"), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()), critical=False)
        .sign(signing, hashes.SHA256())
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
