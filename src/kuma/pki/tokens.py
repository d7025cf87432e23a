"""Dataplane tokens: JWTs by which a proxy proves which Dataplane it may run for."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from kuma.base.errors import AccessDenied, InvalidResource, Unauthenticated
from kuma.resources import kinds
from kuma.resources.dataplane import DataplaneSpec
from kuma.resources.resource import Resource
from kuma.resources.secret import SecretSpec

ALGORITHM = "RS256"
"""The only one. The token's header is never asked which one to use (RFC 8725 §3.1)."""
KEY_BITS = 2048
_BACKDATED = timedelta(minutes=5)
_SERIAL = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)

Secrets = Mapping[str, Resource[SecretSpec]]


@dataclass(frozen=True, slots=True)
class DataplaneIdentity:
    """Whom a token names. What is empty is not restricted."""

    mesh: str
    name: str = ""
    tags: Mapping[str, frozenset[str]] = field(default_factory=dict)


def signing_key_name(mesh: str, serial: int = 1) -> str:
    """The Secret with a signing key of a mesh."""
    return f"dataplane-token-signing-key-{mesh}-{serial}"


async def new_signing_key(mesh: str, serial: int = 1) -> Resource[Any]:
    """A Secret with a new signing key, in the original's form (PEM of PKCS#1)."""
    key = await asyncio.to_thread(rsa.generate_private_key, 65537, KEY_BITS)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    return Resource(kinds.SECRET.key(signing_key_name(mesh, serial), mesh), SecretSpec(data=pem))


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
    """A token for proxies of `mesh`, signed by its newest key.

    Raises:
        InvalidResource: the mesh has no signing key.
    """
    serials = [serial for serial, _ in _keys(mesh, secrets)]
    if not serials:
        raise InvalidResource.of(
            "mesh", f'there is no signing key in mesh "{mesh}": a Secret "{signing_key_name(mesh)}" is needed'
        )
    serial = max(serials)
    claims = {
        "Name": name,
        "Mesh": mesh,
        "Tags": {tag: list(values) for tag, values in (tags or {}).items()},
        "Type": kind,
        "exp": int((now + valid_for).timestamp()),
        "nbf": int((now - _BACKDATED).timestamp()),
        "iat": int(now.timestamp()),
        "jti": str(uuid.uuid4()),
    }
    key = _load(secrets[signing_key_name(mesh, serial)])
    return jwt.encode(claims, key, algorithm=ALGORITHM, headers={"kid": str(serial)})


def verify_token(token: str, mesh: str, secrets: Secrets, now: datetime) -> DataplaneIdentity:
    """Whom `token` names, as far as the signing keys of `mesh` vouch for it.

    Raises:
        Unauthenticated: it is forged, malformed, of another mesh, not valid yet or no longer.
    """
    try:
        kid = jwt.get_unverified_header(token).get("kid")
        name = signing_key_name(mesh, int(kid)) if isinstance(kid, str) and _SERIAL.fullmatch(kid) else ""
        if name not in secrets:
            raise Unauthenticated(f'the token is signed by a key that mesh "{mesh}" does not have')
        public = _load(secrets[name]).public_key()
        # Times are checked below, against the clock that everything else goes by.
        options: Any = {"verify_exp": False, "verify_nbf": False, "verify_iat": False, "verify_aud": False}
        claims = jwt.decode(token, public, algorithms=[ALGORITHM], options=options)
    except jwt.InvalidTokenError as error:
        raise Unauthenticated(f"the token does not hold: {error}") from None
    _check_times(claims, now)
    return _identity(claims, mesh)


def _check_times(claims: Mapping[str, Any], now: datetime) -> None:
    exp, nbf = claims.get("exp"), claims.get("nbf", 0)
    if not isinstance(exp, int) or not isinstance(nbf, int):
        raise Unauthenticated("the token does not say until when it is valid")
    if now.timestamp() >= exp:
        raise Unauthenticated("the token has expired; make a new one with `kumactl generate dataplane-token`")
    if now.timestamp() < nbf:
        raise Unauthenticated("the token is not valid yet")


def _identity(claims: Mapping[str, Any], mesh: str) -> DataplaneIdentity:
    name, own_mesh, tags = claims.get("Name", ""), claims.get("Mesh") or mesh, claims.get("Tags", {})
    well_formed = isinstance(name, str) and isinstance(own_mesh, str) and isinstance(tags, Mapping)
    if not well_formed or not all(isinstance(v, list) and all(isinstance(s, str) for s in v) for v in tags.values()):
        raise Unauthenticated("the token's claims are malformed")
    if own_mesh != mesh:
        raise Unauthenticated(f"proxy mesh from requestor: {mesh} is different than in token: {own_mesh}")
    return DataplaneIdentity(own_mesh, name, {tag: frozenset(values) for tag, values in tags.items()})


def authorize(identity: DataplaneIdentity, mesh: str, name: str, spec: DataplaneSpec) -> None:
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


def _keys(mesh: str, secrets: Secrets) -> list[tuple[int, str]]:
    prefix = signing_key_name(mesh, 0)[:-1]
    found = ((name.removeprefix(prefix), name) for name in secrets if name.startswith(prefix))
    return [(int(serial), name) for serial, name in found if _SERIAL.fullmatch(serial)]


def _load(secret: Resource[SecretSpec]) -> rsa.RSAPrivateKey:
    key = _parsed(secret.spec.data)
    if key is None:
        raise Unauthenticated(f'Secret "{secret.name}" in mesh "{secret.mesh}" does not hold an RSA key in PEM')
    return key


@lru_cache(maxsize=64)
def _parsed(pem: bytes) -> rsa.RSAPrivateKey | None:
    """The key in `pem`. Kept, because checking an RSA key takes as long as verifying hundreds of tokens."""
    try:
        key = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError):
        return None
    return key if isinstance(key, rsa.RSAPrivateKey) else None
