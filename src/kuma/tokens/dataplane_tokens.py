"""Dataplane tokens: JWTs by which a proxy proves which Dataplane it may run for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt

from kuma.base.errors import AccessDenied, Unauthenticated
from kuma.resources import kinds
from kuma.resources.models.dataplane import DataplaneSpec
from kuma.resources.models.secret import Secrets, SecretSpec
from kuma.resources.resource import Resource
from kuma.tokens import signing_keys
from kuma.tokens.signing_keys import Keyring, new_key
from kuma.tokens.validation import STANDARD, Validation

_OTHERS = frozenset({"Groups", "Zone", "Scope"})
"""Claims of tokens of other kinds. Whoever uses one key for both must not get two tokens for one."""
_TYPES = ("", "dataplane")
"""What a token may say to be for. In the original there are ones for other proxies, by the same keys."""
_FOREVER = datetime.max.replace(tzinfo=UTC)
_REMEDY = "kumactl generate dataplane-token"
_NOTICE = timedelta(days=14)
"""How long before its end a token is warned of; in the second half of its life if that is shorter."""


@dataclass(frozen=True, slots=True)
class DataplaneClaims:
    """Claims of a dataplane token: its subject and its end. Empty ones restrict nothing.

    `warned` is when people are to be told that it ends. `registers` tells whether the Dataplane may come along with the
    proxy; else it runs for the one that is stored.
    """

    mesh: str
    name: str = ""
    tags: Mapping[str, frozenset[str]] = field(default_factory=dict)
    expires: datetime = _FOREVER
    warned: datetime = _FOREVER
    registers: bool = True


def signing_key_name(mesh: str, serial: int = 1) -> str:
    """Returns the Secret with a signing key of a mesh."""
    return f"dataplane-token-signing-key-{mesh}-{serial}"


async def new_signing_key(mesh: str, serial: int = 1) -> Resource[Any]:
    """Returns a Secret with a new signing key."""
    return Resource(kinds.SECRET.key(signing_key_name(mesh, serial), mesh), SecretSpec(data=await new_key()))


def keyring(mesh: str, secrets: Secrets, validation: Validation = STANDARD) -> Keyring:
    """Returns the signing keys of a mesh's dataplane tokens, among its Secrets and in the settings."""
    return Keyring(
        f"dataplane-token-signing-key-{mesh}",
        f"dataplane-token-revocations-{mesh}",
        f'mesh "{mesh}"',
        f'Secret of name "{{name}}" in mesh "{mesh}"',
        _REMEDY,
        secrets,
        validation.of(mesh),
        validation.uses_secrets,
    )


def issue_token(
    mesh: str,
    secrets: Secrets,
    *,
    name: str = "",
    tags: Mapping[str, Sequence[str]] | None = None,
    kind: str = "",
    valid_for: timedelta,
    now: datetime,
) -> str:
    """Returns a token for proxies of `mesh`, signed by its newest key.

    Raises:
        NoSigningKey: the mesh has no signing key.
    """
    claims = {
        "Name": name,
        "Mesh": mesh,
        "Tags": {tag: list(values) for tag, values in (tags or {}).items()},
        "Type": kind,
    }
    return keyring(mesh, secrets).sign(claims, valid_for, now)


def verify_token(
    token: str, mesh: str, secrets: Secrets, now: datetime, validation: Validation = STANDARD
) -> DataplaneClaims:
    """Verifies `token` with the signing keys of `mesh`, and returns its claims.

    Raises:
        Unauthenticated: it is forged, malformed, revoked, of another mesh, not valid yet or no longer.
    """
    return claims_of(keyring(mesh, secrets, validation).verify(token, now), mesh)


def named_mesh(token: str) -> str:
    """Returns the mesh that a token says it is for, which is not verified; empty if it says none.

    Raises:
        Unauthenticated: it is no token.
    """
    try:
        mesh = signing_keys.unverified(token, signing_keys.PAYLOAD).get("Mesh")
    except jwt.InvalidTokenError:
        raise Unauthenticated(f"the token is damaged, or no token at all; make a new one with `{_REMEDY}`") from None
    return mesh if isinstance(mesh, str) else ""


def claims_of(claims: Mapping[str, Any], mesh: str) -> DataplaneClaims:
    """Reads the claims of a token for `mesh` whose signature is right.

    Raises:
        Unauthenticated: they are malformed, or of another mesh or kind of token.
    """
    if not _OTHERS.isdisjoint(claims):
        raise Unauthenticated("the token is none of a dataplane: it has the claims of a user or a zone")
    name, own_mesh, tags = claims.get("Name", ""), claims.get("Mesh") or mesh, claims.get("Tags", {})
    well_formed = isinstance(name, str) and isinstance(own_mesh, str) and isinstance(tags, Mapping)
    if not well_formed or not all(isinstance(v, list) and all(isinstance(s, str) for s in v) for v in tags.values()):
        raise Unauthenticated("the token's claims are malformed")
    if own_mesh != mesh:
        raise Unauthenticated(f"proxy mesh from requestor: {mesh} is different than in token: {own_mesh}")
    if claims.get("Type", "") not in _TYPES:
        raise Unauthenticated("the token is none of a dataplane: its type is another proxy's")
    found = {tag: frozenset(values) for tag, values in tags.items()}
    end = _time(claims["exp"])
    return DataplaneClaims(own_mesh, name, found, end, end - min(_NOTICE, (end - _begin(claims, end)) / 2))


def _begin(claims: Mapping[str, Any], end: datetime) -> datetime:
    """Returns since when a token is; if it does not say, long ago."""
    given = claims.get("iat", claims.get("nbf"))
    return min(_time(given), end) if isinstance(given, int) else end - 2 * _NOTICE


def _time(seconds: int) -> datetime:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return _FOREVER


def authorize(identity: DataplaneClaims, mesh: str, name: str, spec: DataplaneSpec) -> None:
    """Check that whoever `identity` names may run for this Dataplane.

    Raises:
        AccessDenied: the text says in what they differ.
    """
    if identity.name and identity.name != name:
        raise AccessDenied(f"proxy name from requestor: {name} is different than in token: {identity.name}")
    if identity.mesh and identity.mesh != mesh:
        raise AccessDenied(f"proxy mesh from requestor: {mesh} is different than in token: {identity.mesh}")
    values = spec.tag_values
    for tag, allowed in sorted(identity.tags.items()):
        if tag not in values:
            raise AccessDenied(f'dataplane has no tag "{tag}" required by the token')
        for value in sorted(values[tag] - allowed):
            listed = " ".join(f'"{a}"' for a in sorted(allowed))
            raise AccessDenied(
                f'dataplane contains tag "{tag}" with value "{value}" which is not allowed with this token. '
                f"Allowed values in token are [{listed}]"
            )
