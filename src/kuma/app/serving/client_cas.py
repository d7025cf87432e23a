"""Reads the CAs that verify certificates of the API's clients, from the files of the administrator."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from kuma.base.errors import Misconfigured
from kuma.base.files import content
from kuma.pki import pem
from kuma.pki.authority import AuthorityUnusable
from kuma.pki.x509 import certificate_pem

FILE, DIRECTORY = "apiServer.https.tlsCaFile", "apiServer.auth.clientCertsDir"
"""The settings, for errors."""
_SUFFIXES = (".pem", ".crt")
"""Of the files in the directory that count, as in the original."""


def read(file: Path | None, directory: Path | None) -> str:
    """Returns the certificates of both places in PEM and nothing else; empty if neither is given.

    Raises:
        Misconfigured: one cannot be read, or holds no certificate; names the setting.
    """
    return "".join((*_of_file(file), *_of_directory(directory)))


def _of_file(file: Path | None) -> Iterator[str]:
    if file is not None:
        yield from _certificates(file.expanduser(), FILE)


def _of_directory(directory: Path | None) -> Iterator[str]:
    if directory is None:
        return
    place = directory.expanduser()
    try:
        files = sorted(path for path in place.iterdir() if path.suffix in _SUFFIXES and not path.is_dir())
    except OSError as error:
        raise Misconfigured(f"{DIRECTORY}: cannot read {place}: {error.strerror}") from None
    if not files:
        raise Misconfigured(f"{DIRECTORY}: {place} has no file that ends in {' or '.join(_SUFFIXES)}")
    for path in files:
        yield from _certificates(path, DIRECTORY)


def _certificates(path: Path, setting: str) -> Iterator[str]:
    try:
        found = pem.read_chain(content(path))
    except OSError as error:
        raise Misconfigured(f"{setting}: cannot read {path}: {error.strerror}") from None
    except AuthorityUnusable:
        raise Misconfigured(f"{setting}: {path} has to hold certificates in PEM") from None
    return (certificate_pem(certificate).decode() for certificate in found)
