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
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from kuma.base import files as private_files
from kuma.base.errors import Misconfigured
from kuma.pki import own_ca
from kuma.pki.x509 import CaPair, certificate_pem, key_pem

CA_LIFETIME = timedelta(days=10 * 365)
LIFETIME = timedelta(days=397)
"""Of the servers' certificate. It is made anew at every start."""


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
        for path in (ca_key_file, files.key):
            private_files.tighten(path)
        if files.ca.exists() != ca_key_file.exists() and not _is_begun(files):
            raise Misconfigured(
                f"{directory} holds only one of ca.crt and ca.key; put back the other, "
                "or delete it and give all proxies the new ca.crt"
            )
        if not files.ca.exists():
            made = own_ca.new_ca(_name("Kuma control plane CA"), now, CA_LIFETIME)
            _write(ca_key_file, key_pem(made.key))
            _write(files.ca, certificate_pem(made.certificate), mode=0o644)
        loaded = serialization.load_pem_private_key(ca_key_file.read_bytes(), None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)
        ca = CaPair(x509.load_pem_x509_certificate(files.ca.read_bytes()), loaded)
        purpose = ExtendedKeyUsageOID.SERVER_AUTH
        issued = own_ca.issue(ca, _name("kuma-cp"), dict.fromkeys(hosts), purpose, now, now + LIFETIME)
        _write(files.key, key_pem(issued.key))
        _write(files.chain, certificate_pem(issued.certificate), mode=0o644)
    except OSError as error:
        raise Misconfigured(f"cannot keep the control plane's certificate in {directory}: {error.strerror}") from None
    return files


def _is_begun(files: ServerCertificate) -> bool:
    """Whether the first start was cut off before anything was issued: nobody has been given the CA."""
    return not any(path.exists() for path in (files.ca, files.key, files.chain))


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _write(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Replace a file at once, never readable by more than `mode` says."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(path)
