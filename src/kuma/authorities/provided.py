"""The `provided` backend: certificate and key come from the user, in Secrets, files, or the Mesh itself."""

from __future__ import annotations

from pathlib import Path

from kuma.authorities.driver import Content, Driver
from kuma.authorities.local import local_authority
from kuma.pki import pem
from kuma.pki.authority import Authority, AuthorityUnusable, NotLoaded
from kuma.pki.x509 import CaPair
from kuma.resources.models.mesh import Backend, DataSource
from kuma.resources.models.secret import Secrets

LARGEST_FILE = 1 << 20
"""Bytes; as much as the API takes."""


def load(source: DataSource, mesh: str, secrets: Secrets) -> bytes:
    """Returns the content of a data source.

    Raises:
        AuthorityUnusable: the Secret does not exist, or the file cannot be read.
    """
    if source.secret is not None:
        if source.secret not in secrets:
            raise AuthorityUnusable(
                f'could not load data: Resource not found: type="Secret" name="{source.secret}" mesh="{mesh}"'
            )
        return secrets[source.secret].spec.data
    if source.file is not None:
        try:
            return _contents(Path(source.file))
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise AuthorityUnusable(
                f"could not load data: {source.file} on the control plane's machine: {reason}"
            ) from None
    return source.inline if source.inline is not None else (source.inline_string or "").encode()


def _contents(path: Path) -> bytes:
    """Returns the content of a regular file; a pipe or a device could block for ever, and everything else with it.

    Raises:
        OSError, ValueError: it cannot be read, or is none.
    """
    if path.exists() and not path.is_file():
        raise ValueError("is not a file")
    with path.open("rb") as file:
        found = file.read(LARGEST_FILE + 1)
    if len(found) > LARGEST_FILE:
        raise ValueError(f"has more than {LARGEST_FILE} bytes")
    return found


def content(mesh: str, backend: Backend, secrets: Secrets) -> tuple[bytes, bytes]:
    """Certificates and key as they are given.

    Raises:
        NotLoaded: one cannot be loaded, or both; each is told under its own name.
    """
    conf = backend.settings
    assert conf.cert is not None and conf.key is not None  # the Mesh was validated
    found: dict[str, bytes] = {}
    missing: dict[str, str] = {}
    for part, source in (("cert", conf.cert), ("key", conf.key)):
        try:
            found[part] = load(source, mesh, secrets)
        except AuthorityUnusable as error:
            missing[part] = str(error)
    if missing:
        raise NotLoaded(missing)
    return found["cert"], found["key"]


def open_authority(mesh: str, backend: Backend, secrets: Secrets) -> Authority:
    """Returns the authority that a backend describes.

    Raises:
        AuthorityUnusable: it cannot be loaded, or certificate and key do not belong together.
    """
    cert, key_pem = content(mesh, backend, secrets)
    chain, key = pem.read_chain(cert), pem.read_key(key_pem)
    pem.check_chain(chain, key)
    with pem.readable("not a valid x509 certificate"):
        return local_authority(backend.name, CaPair(chain[0], key), chain)


class Provided(Driver):
    """The driver of `provided`."""

    def content(self, mesh: str, backend: Backend, secrets: Secrets) -> Content:
        return content(mesh, backend, secrets)

    def open(self, mesh: str, backend: Backend, secrets: Secrets) -> Authority:
        return open_authority(mesh, backend, secrets)

    def used_secrets(self, mesh: str, backend: Backend) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for name in self.halves(mesh, backend) if name))

    def halves(self, mesh: str, backend: Backend) -> tuple[str, str]:
        cert, key = backend.settings.cert, backend.settings.key
        return (cert.secret if cert else None) or "", (key.secret if key else None) or ""

    def pair(self, mesh: str, backend: Backend, secrets: Secrets) -> tuple[bytes, bytes]:
        return content(mesh, backend, secrets)
