"""Lists Secrets without what they hold: their names, what they are, and when that ends. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from typing import Any, NamedTuple

from kuma.pki.authority import AuthorityUnusable
from kuma.pki.pem import read_chain
from kuma.resources.resource import Resource
from kuma.resources.view import MeshView


class ShownSecret(NamedTuple):
    """A Secret as it is shown."""

    name: str
    what: str
    ends: datetime | None
    used_by: tuple[str, ...]
    changed: datetime


def secrets(view: MeshView) -> tuple[ShownSecret, ...]:
    """Returns the Secrets of a mesh."""
    return tuple(_shown(one, _users(view, one.name)) for _, one in sorted(view.secrets.items()))


def global_secrets(found: Iterable[Resource[Any]]) -> tuple[ShownSecret, ...]:
    """Returns the Secrets of no mesh."""
    return tuple(_shown(one, ()) for one in sorted(found, key=lambda secret: secret.name))


def _shown(secret: Resource[Any], users: tuple[str, ...]) -> ShownSecret:
    data: bytes = secret.spec.data
    what, ends = _what(secret.name), None
    if b"BEGIN CERTIFICATE" in data:
        with suppress(AuthorityUnusable):
            chain = read_chain(data)
            what, ends = "certificate", min(one.not_valid_after_utc for one in chain)
    elif b"PRIVATE KEY" in data:
        what = "private key"
    return ShownSecret(secret.name, what, ends, users, secret.modification_time)


def _what(name: str) -> str:
    if "signing-key" in name:
        return "signing key of tokens"
    return "revocations of tokens" if "revocations" in name else "secret"


def _users(view: MeshView, name: str) -> tuple[str, ...]:
    """Returns the authorities that a Secret is a part of."""
    found = []
    for backend in view.backends:
        sources = (backend.settings.cert, backend.settings.key)
        made = f"{view.name}.ca-builtin-"
        named = any(source is not None and source.secret == name for source in sources)
        if named or (name.startswith(made) and name.removeprefix(made).partition("-")[2] == backend.name):
            found.append(backend.name)
    return tuple(found)
