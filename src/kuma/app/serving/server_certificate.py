"""The certificate of the control plane's own servers, and the CA by which proxies and clients verify it."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import structlog
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from kuma.base import files
from kuma.base.errors import Misconfigured
from kuma.pki import own_ca, pem
from kuma.pki.authority import AuthorityUnusable
from kuma.pki.x509 import CaPair, certificate_pem, key_pem

log = structlog.get_logger(__name__)

KEY = "tls.key"
"""The servers' key, in the work directory."""
CA_LIFETIME = timedelta(days=10 * 365)
LIFETIME = timedelta(days=397)
"""Of the servers' certificate."""
_GIVEN_CA = "given-ca.crt"
_KEPT = timedelta(days=30)
"""How old the servers' certificate may be at a start that keeps it; the rest of its life is for running."""


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """Files in PEM: the servers' chain and key, and the CA that clients are given."""

    chain: Path
    key: Path
    ca: Path


def given(chain: Path, key: Path, ca: Path | None, directory: Path) -> ServerCertificate:
    """Returns the user's own files. Without a CA the chain's last certificate is it, and is written to `directory`.

    Raises:
        Misconfigured: one cannot be read, or the CA is not known.
    """
    paths = [path.expanduser() for path in (chain, key, *((ca,) if ca else ()))]
    for path in paths:
        if not os.access(path, os.R_OK):
            raise Misconfigured(f"cannot read {path}, named in general.tlsCertFile, tlsKeyFile or tlsCaFile")
    files.warn_of_readers(paths[1])
    return ServerCertificate(paths[0], paths[1], paths[2] if ca else _top(paths[0], directory))


def written(chain: Path | None, key: Path | None, ca: Path | None, directory: Path) -> ServerCertificate:
    """Returns the files that `given` or `ensure` have made or found; nothing is written."""
    if chain and key:
        return ServerCertificate(chain.expanduser(), key.expanduser(), ca.expanduser() if ca else directory / _GIVEN_CA)
    return ServerCertificate(directory / "tls.crt", directory / KEY, directory / "ca.crt")


def _top(chain: Path, directory: Path) -> Path:
    """Writes the certificate at the top of a chain to a file of its own, by which clients verify the rest."""
    try:
        top = pem.read_chain(files.content(chain))[-1]
    except OSError as error:
        raise Misconfigured(f"cannot read {chain}, named in general.tlsCertFile: {error.strerror}") from None
    except AuthorityUnusable as error:
        raise Misconfigured(f"{chain}, named in general.tlsCertFile: {error}") from None
    if top.subject != top.issuer:
        raise Misconfigured(
            f"{chain}, named in general.tlsCertFile, does not end with a self-signed certificate: give the CA by which "
            "proxies verify it in general.tlsCaFile (KUMA_GENERAL_TLS_CA_FILE)"
        )
    path, wanted = directory / _GIVEN_CA, certificate_pem(top)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists() or files.content(path) != wanted:
            files.replace(path, wanted, mode=0o644)
    except OSError as error:
        raise Misconfigured(f"cannot keep the CA of {chain} in {directory}: {error.strerror}") from None
    return path


def own_names(interface: str) -> tuple[str, ...]:
    """Returns the names by which this machine's servers are reached when they listen on `interface`."""
    names = ("localhost", "127.0.0.1", "::1")
    if interface in names:
        return names
    own = (socket.gethostname(), socket.getfqdn())
    return (*names, *own) if ipaddress.ip_address(interface).is_unspecified else (*names, *own, interface)


def ensure(directory: Path, hosts: Iterable[str], now: datetime) -> ServerCertificate:
    """Returns a server certificate for `hosts` under the CA in `directory`, which is made if it is not there.

    The CA stays, because proxies are given it; the certificate below it can follow the configuration. Nothing is
    written that would not change, and one that is merely old is used if no other can be written.

    Raises:
        Misconfigured: the directory cannot be written, or holds half of a CA, or something else.
    """
    paths = written(None, None, None, directory)
    ca_key_file = directory / "ca.key"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in (ca_key_file, paths.key):
            files.tighten(path)
            files.warn_of_readers(path)
        if paths.ca.exists() != ca_key_file.exists() and not _is_begun(paths):
            raise Misconfigured(
                f"{directory} holds only one of ca.crt and ca.key; put back the other, "
                "or delete it and give all proxies the new ca.crt"
            )
        if not paths.ca.exists():
            made = own_ca.new_ca(_name("Kuma control plane CA"), now, CA_LIFETIME)
            files.replace(ca_key_file, key_pem(made.key))
            files.replace(paths.ca, certificate_pem(made.certificate), mode=0o644)
        ca = _opened(paths.ca, ca_key_file)
        names = own_ca.names(hosts)
        begun = _begin(paths, ca, names, now)
        if begun is None or now > begun + _KEPT:
            try:
                _write(paths, ca, names, now)
            except OSError as error:
                if _begin(paths, ca, names, now) is None:
                    raise
                log.warning("the servers' certificate cannot be replaced; the old one is used", reason=error.strerror)
    except OSError as error:
        raise Misconfigured(f"cannot keep the control plane's certificate in {directory}: {error.strerror}") from None
    return paths


def _begin(paths: ServerCertificate, ca: CaPair, names: x509.SubjectAlternativeName, now: datetime) -> datetime | None:
    """Returns when the existing certificate begins; None if there is none that will do."""
    try:
        found = _opened(paths.chain, paths.key).certificate
        found.verify_directly_issued_by(ca.certificate)
        has_names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value == names
    except (OSError, Misconfigured, InvalidSignature, ValueError, TypeError, x509.ExtensionNotFound):
        return None
    begin, end = found.not_valid_before_utc, found.not_valid_after_utc
    return begin if has_names and begin <= now < end else None


def _write(paths: ServerCertificate, ca: CaPair, names: x509.SubjectAlternativeName, now: datetime) -> None:
    issued = own_ca.issue(ca, _name("kuma-cp"), names, ExtendedKeyUsageOID.SERVER_AUTH, now, now + LIFETIME)
    files.replace(paths.key, key_pem(issued.key))
    files.replace(paths.chain, certificate_pem(issued.certificate), mode=0o644)


def _opened(certificate: Path, key: Path) -> CaPair:
    try:
        found = CaPair(pem.read_chain(files.content(certificate))[0], pem.read_key(files.content(key)))
        pem.check_pair(found.certificate, found.key)
    except AuthorityUnusable:
        raise Misconfigured(
            f"{certificate} and {key} have to hold a certificate and its key in PEM; put them back, "
            "or delete both and give all proxies the new ca.crt"
        ) from None
    return found


def _is_begun(paths: ServerCertificate) -> bool:
    """Tells whether the first start was interrupted before anything was issued, so that nobody has the CA."""
    return not any(path.exists() for path in (paths.ca, paths.key, paths.chain))


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])
