"""The certificate of the control plane's own servers, and the CA by which proxies and clients verify it."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from kuma.base.errors import Misconfigured

CA_LIFETIME = timedelta(days=10 * 365)
LIFETIME = timedelta(days=397)
"""Of the servers' certificate. It is made anew at every start."""
_BACKDATED = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """Files in PEM: the servers' chain and key, and the CA that clients are given."""

    chain: Path
    key: Path
    ca: Path


def given(chain: Path, key: Path, ca: Path) -> ServerCertificate:
    """The user's own files.

    Raises:
        Misconfigured: one cannot be read.
    """
    files = [path.expanduser() for path in (chain, key, ca)]
    for path in files:
        if not os.access(path, os.R_OK):
            raise Misconfigured(f"cannot read {path}, named in general.tlsCertFile, tlsKeyFile or tlsCaFile")
    return ServerCertificate(*files)


def own_names(interface: str) -> tuple[str, ...]:
    """The names by which this machine's servers are reached when they listen on `interface`."""
    names = ("localhost", "127.0.0.1", "::1")
    if interface in names:
        return names
    own = (socket.gethostname(), socket.getfqdn())
    return (*names, *own) if ipaddress.ip_address(interface).is_unspecified else (*names, *own, interface)


def ensure(directory: Path, hosts: Iterable[str], now: datetime) -> ServerCertificate:
    """A fresh server certificate for `hosts` under the CA in `directory`, which is made if it is not there.

    The CA stays, because proxies are given it; the certificate below it can follow the configuration.

    Raises:
        Misconfigured: the directory cannot be written, or holds only half of a CA.
    """
    files = ServerCertificate(directory / "tls.crt", directory / "tls.key", directory / "ca.crt")
    ca_key_file = directory / "ca.key"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if files.ca.exists() != ca_key_file.exists():
            raise Misconfigured(
                f"{directory} holds only one of ca.crt and ca.key; put back the other, "
                "or delete it and give all proxies the new ca.crt"
            )
        if not files.ca.exists():
            ca, ca_key = _ca(now)
            _write(ca_key_file, _key_pem(ca_key))
            _write(files.ca, ca.public_bytes(serialization.Encoding.PEM), mode=0o644)
        ca = x509.load_pem_x509_certificate(files.ca.read_bytes())
        loaded = serialization.load_pem_private_key(ca_key_file.read_bytes(), None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)
        certificate, key = _server(ca, loaded, dict.fromkeys(hosts), now)
        _write(files.key, _key_pem(key))
        _write(files.chain, certificate.public_bytes(serialization.Encoding.PEM), mode=0o644)
    except OSError as error:
        raise Misconfigured(f"cannot keep the control plane's certificate in {directory}: {error.strerror}") from None
    return files


def _ca(now: datetime) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Kuma control plane CA")])
    usage = _usage(certificates=True)
    certificate = (
        _builder(name, name, key.public_key(), now, now + CA_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate, key


def _server(
    ca: x509.Certificate, ca_key: ec.EllipticCurvePrivateKey, hosts: Iterable[str], now: datetime
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kuma-cp")])
    certificate = (
        _builder(ca.subject, name, key.public_key(), now, min(now + LIFETIME, ca.not_valid_after_utc))
        .add_extension(x509.SubjectAlternativeName([_san(host) for host in hosts]), critical=False)
        .add_extension(_usage(certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    return certificate, key


def _builder(
    issuer: x509.Name, subject: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, end: datetime
) -> x509.CertificateBuilder:
    return x509.CertificateBuilder(issuer, subject, key, x509.random_serial_number(), now - _BACKDATED, end)


def _usage(*, certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=certificates,
        crl_sign=certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _san(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Replace a file at once, never readable by more than `mode` says."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(path)
