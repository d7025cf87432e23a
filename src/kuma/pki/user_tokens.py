"""User tokens: JWTs by which people and scripts prove to the API who they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import structlog

from kuma.base.clock import Clock
from kuma.base.errors import AlreadyExists, Unauthenticated
from kuma.pki.keyring import Keyring, Secrets, new_key
from kuma.resources import kinds
from kuma.resources.resource import Resource
from kuma.resources.secret import SecretSpec
from kuma.store.protocol import Create, Store

log = structlog.get_logger(__name__)

SIGNING_KEY = "user-token-signing-key"
REVOCATIONS = "user-token-revocations"
ADMIN_TOKEN = "admin-user-token"  # noqa: S105 - the name of a Secret
ADMIN, ADMINS = "mesh-system:admin", "mesh-system:admin"
"""The user and the group of administrators."""
_ADMIN_TOKEN_LIFETIME = timedelta(days=10 * 365)


@dataclass(frozen=True, slots=True)
class User:
    """Whom a token names."""

    name: str
    groups: tuple[str, ...] = ()


class UserTokens:
    """Issues and verifies. The keys are GlobalSecrets, looked up anew each time: revoking acts at once."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def issue(self, name: str, groups: Sequence[str], valid_for: timedelta) -> str:
        """A token for a user.

        Raises:
            InvalidResource: there is no signing key.
        """
        keys = await self._keys()
        return keys.sign({"Name": name, "Groups": list(groups)}, valid_for, self._clock.now())

    async def verify(self, token: str) -> User:
        """Whom a token names.

        Raises:
            Unauthenticated: it is none of ours, revoked, not valid yet or no longer.
        """
        claims = (await self._keys()).verify(token, self._clock.now())
        name, groups = claims.get("Name"), claims.get("Groups") or []
        if not isinstance(name, str) or not name or not isinstance(groups, list):
            raise Unauthenticated("the token's claims are malformed")
        if not all(isinstance(group, str) for group in groups):
            raise Unauthenticated("the token's claims are malformed")
        return User(name, tuple(groups))

    async def ensure(self, *, admin_token: bool) -> None:
        """Make the first signing key, and the administrator's token under it, if there is no key yet."""
        keys = await self._keys()
        if any(name.startswith(f"{SIGNING_KEY}-") for name in keys.secrets):
            return
        created = [_secret(f"{SIGNING_KEY}-1", await new_key())]
        if admin_token:
            ring = _keyring({created[0].name: created[0]})
            claims = {"Name": ADMIN, "Groups": [ADMINS]}
            created.append(_secret(ADMIN_TOKEN, ring.sign(claims, _ADMIN_TOKEN_LIFETIME, self._clock.now()).encode()))
        try:
            await self._store.transact([Create(secret) for secret in created])
        except AlreadyExists:
            return  # another control plane was faster
        log.info("signing key of user tokens created", secrets=[secret.name for secret in created])

    async def _keys(self) -> Keyring:
        page = await self._store.list(kinds.GLOBAL_SECRET.name, name_contains="user-token")
        return _keyring({secret.name: secret for secret in page.items})


def _keyring(secrets: Secrets) -> Keyring:
    return Keyring(SIGNING_KEY, REVOCATIONS, "this control plane", "kumactl generate user-token", secrets)


def _secret(name: str, data: bytes) -> Resource[Any]:
    return Resource(kinds.GLOBAL_SECRET.key(name), SecretSpec(data=data))
