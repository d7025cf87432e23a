"""How the control plane is reached: by whose word it is believed to be the one, and what others could read."""

from __future__ import annotations

import ssl
from urllib.parse import urlsplit

import httpx
import typer

from kuma.base.errors import Misconfigured
from kuma.cli.client import CHOOSE_ANOTHER, Client
from kuma.cli.ctl_config import ApiServer


def client(server: ApiServer, seconds: float, remedy: str = CHOOSE_ANOTHER) -> Client:
    """A client of a control plane; see `Client`."""
    verify = verification(server)
    return Client(server.url, seconds, verify, server.request_headers, remedy=remedy, ca_file=server.ca_cert_file)


def verification(server: ApiServer) -> ssl.SSLContext:
    """How a control plane is verified, and by which certificate it knows us.

    Raises:
        Misconfigured: a file cannot be used.
    """
    context = _trusting(server)
    if bool(server.client_cert_file) != bool(server.client_key_file):
        raise Misconfigured("--client-cert-file and --client-key-file are given together or not at all")
    if server.client_cert_file:
        try:
            context.load_cert_chain(server.client_cert_file, server.client_key_file)
        except OSError as error:  # ssl.SSLError is one
            both = f"{server.client_cert_file} and {server.client_key_file}"
            raise Misconfigured(f"cannot use the client certificate in {both}: {_reason(error)}") from None
    return context


def _trusting(server: ApiServer) -> ssl.SSLContext:
    if server.ca_cert_file:
        try:
            return ssl.create_default_context(cafile=server.ca_cert_file)
        except OSError as error:
            raise Misconfigured(f"cannot read the CA certificate {server.ca_cert_file}: {_reason(error)}") from None
    context = httpx.create_ssl_context()
    if server.skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return "it is not what PEM looks like, or key and certificate do not belong together"
    return str(error.strerror or error)


def warn(server: ApiServer) -> None:
    """Say what others on the way could read, or pretend to be."""
    url = urlsplit(server.url)
    if url.scheme == "http" and not _is_here(url.hostname or ""):
        what = "the token is sent" if "authorization" in server.request_headers else "requests and answers travel"
        typer.echo(f"Warning: {what} to {url.hostname} in the clear; use an https address", err=True)
    if url.scheme == "https" and server.skip_verify and not server.ca_cert_file:
        typer.echo(f"Warning: whoever answers at {url.hostname} is believed (skipVerify); use --ca-cert-file", err=True)


def _is_here(host: str) -> bool:
    return host == "localhost" or host == "::1" or host.startswith("127.")
