"""Connects to the control plane: verifies it, shows a client certificate, warns of what others could read."""

from __future__ import annotations

import os
import ssl
import stat
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from kuma.base import command_line
from kuma.base.errors import Misconfigured
from kuma.base.values import addresses
from kuma.kumactl.connection.client import CHOOSE_ANOTHER, Client
from kuma.kumactl.connection.config_file import ApiServer


def client(server: ApiServer, seconds: float, remedy: str = CHOOSE_ANOTHER) -> Client:
    """A client of a control plane; see `Client`."""
    verify = verification(server)
    return Client(
        server.url,
        seconds,
        verify,
        server.request_headers,
        remedy=remedy,
        ca_file=server.ca_cert_file,
        client_file=server.client_cert_file,
    )


def verification(server: ApiServer) -> ssl.SSLContext | None:
    """Returns the TLS settings that verify a control plane and hold our own certificate; none for one without TLS.

    Raises:
        Misconfigured: a file cannot be used.
    """
    if bool(server.client_cert_file) != bool(server.client_key_file):
        raise Misconfigured("--client-cert-file and --client-key-file are given together or not at all")
    if not server.client_cert_file and not server.ca_cert_file and urlsplit(server.url).scheme == "http":
        return None  # whatever the files of a system's CAs hold takes long to read
    context = _trusting(server)
    if server.client_cert_file:
        _show(context, Path(server.client_cert_file), Path(server.client_key_file))
    return context


def _show(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    """Have a client show its certificate."""
    _check_client(certificate, key)
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except OSError as error:  # ssl.SSLError is one
        raise Misconfigured(f"cannot use the client certificate in {certificate} and {key}: {_reason(error)}") from None


def _no_password() -> str:
    """Raises, because a key is encrypted and nobody is there to type its password."""
    return ""


def _check_client(certificate: Path, key: Path) -> None:
    """Raises for files that a server would refuse silently, and warns of keys that other users could read."""
    contents = {}
    for option, path in (("--client-cert-file", certificate), ("--client-key-file", key)):
        try:
            contents[option] = path.read_bytes()
        except OSError as error:
            raise Misconfigured(f"{option}: cannot read {path}: {error.strerror}") from None
    _check_end(contents["--client-cert-file"], certificate)
    status = key.stat()
    if status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) & 0o077:
        raise Misconfigured(f"--client-key-file: others can read the key in {key}. Run: chmod go= {key}")


def _check_end(content: bytes, path: Path) -> None:
    from cryptography import x509  # only who shows a certificate needs it

    try:
        end = x509.load_pem_x509_certificate(content).not_valid_after_utc
    except ValueError:
        raise Misconfigured(f"--client-cert-file: {path} has to hold a certificate in PEM") from None
    if end < datetime.now(UTC):
        raise Misconfigured(f"--client-cert-file: the certificate in {path} has ended at {end:%Y-%m-%d %H:%M} UTC")


def _trusting(server: ApiServer) -> ssl.SSLContext:
    if server.ca_cert_file:
        try:
            return ssl.create_default_context(cafile=server.ca_cert_file)
        except OSError as error:
            reason = "it holds no certificate in PEM" if isinstance(error, ssl.SSLError) else _reason(error)
            raise Misconfigured(f"--ca-cert-file: cannot use {server.ca_cert_file}: {reason}") from None
    context = ssl.create_default_context()
    if server.skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return "it is not what PEM looks like, the key is encrypted, or the two do not belong together"
    return str(error.strerror or error)


def warn(server: ApiServer) -> None:
    """Warns of what others on the way could read or forge."""
    url = urlsplit(server.url)
    if url.scheme == "http" and not _is_here(url.hostname or ""):
        what = "the token is sent" if "authorization" in server.request_headers else "requests and answers travel"
        command_line.warn(f"{what} to {url.hostname} in the clear; use an https address")
    if url.scheme == "https" and server.skip_verify and not server.ca_cert_file:
        command_line.warn(f"whoever answers at {url.hostname} is believed (skipVerify); use --ca-cert-file")


def _is_here(host: str) -> bool:
    return host == "localhost" or addresses.is_loopback(host)
