"""User tokens: JWTs by which people and scripts prove to the API who they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import structlog

from kuma.base.clock import Clock
from kuma.base.errors import AccessDenied, AlreadyExists, Conflict, Unauthenticated
from kuma.resources import kinds
from kuma.resources.models.secret import Secrets, SecretSpec
from kuma.resources.resource import Resource
from kuma.store.protocol import Create, Store, Update
from kuma.tokens.signing_keys import Keyring, new_key
from kuma.tokens.validation import NOT_ISSUED, STANDARD, Validation

log = structlog.get_logger(__name__)

SIGNING_KEY = "user-token-signing-key"
REVOCATIONS = "user-token-revocations"
ADMIN_TOKEN = "admin-user-token"  # noqa: S105 - the name of a Secret
ADMIN, ADMINS = "mesh-system:admin", "mesh-system:admin"
"""The user and the group of administrators."""
_OTHERS = frozenset({"Mesh", "Tags", "Type", "Zone", "Scope"})
"""Claims of tokens of other kinds. Whoever uses one key for both must not get two tokens for one."""
_ADMIN_TOKEN_LIFETIME = timedelta(days=10 * 365)


@dataclass(frozen=True, slots=True)
class User:
    """Subject of a user token."""

    name: str
    groups: tuple[str, ...] = ()


class UserTokens:
    """Issues and verifies. The keys are GlobalSecrets, looked up anew each time: revoking acts at once."""

    def __init__(self, store: Store, clock: Clock, validation: Validation = STANDARD) -> None:
        self._store = store
        self._validation = validation
        self._clock = clock

    async def issue(self, name: str, groups: Sequence[str], valid_for: timedelta) -> str:
        """Returns a token for a user.

        Raises:
            NoSigningKey: there is none.
            AccessDenied: tokens are not issued here.
        """
        if not self._validation.issues:
            raise AccessDenied(NOT_ISSUED)
        keys = await self._keys()
        return keys.sign({"Name": name, "Groups": list(groups)}, valid_for, self._clock.now())

    async def verify(self, token: str) -> User:
        """Verifies a token and returns its subject.

        Raises:
            Unauthenticated: it is none of ours, revoked, not valid yet or no longer.
        """
        return _user((await self._keys()).verify(token, self._clock.now()))

    async def ensure(self, *, admin_token: bool) -> None:
        """See that tokens can be issued, and that the administrator has one that holds.

        Each is looked at by itself: whoever has deleted the keys gets a new one at the next start, and with it a new
        token of the administrator instead of the one that no longer holds. One that issues none has neither.
        """
        if not self._validation.issues:
            return
        keys = await self._keys()
        operations: list[Create | Update] = []
        if not keys.can_sign:
            key = _secret(f"{SIGNING_KEY}-{keys.next_serial}", await new_key())
            keys = replace(keys, secrets={**keys.secrets, key.name: key})
            operations.append(Create(key))
        if admin_token:
            operations += self._admin_token(keys)
        if not operations:
            return
        try:
            await self._store.transact(operations)
        except (AlreadyExists, Conflict):
            return  # another control plane was faster
        log.info("user tokens made ready", secrets=[operation.resource.name for operation in operations])

    def _admin_token(self, keys: Keyring) -> tuple[Create | Update, ...]:
        """Returns the operation that stores a token of the administrator; nothing if there is one that is valid."""
        stored, now = keys.secrets.get(ADMIN_TOKEN), self._clock.now()
        if stored is not None:
            with suppress(Unauthenticated):
                if ADMINS in _user(keys.verify(stored.spec.data.decode(errors="replace").strip(), now)).groups:
                    return ()
        claims = {"Name": ADMIN, "Groups": [ADMINS]}
        fresh = _secret(ADMIN_TOKEN, keys.sign(claims, _ADMIN_TOKEN_LIFETIME, now).encode())
        return (Create(fresh),) if stored is None else (Update(stored.with_spec(fresh.spec)),)

    async def _keys(self) -> Keyring:
        page = await self._store.list(kinds.GLOBAL_SECRET.name, name_contains="user-token")
        return _keyring({secret.name: secret for secret in page.items}, self._validation)


def _user(claims: Mapping[str, Any]) -> User:
    if not _OTHERS.isdisjoint(claims):
        raise Unauthenticated("the token is none of a user: it has the claims of a dataplane or a zone")
    name, groups = claims.get("Name"), claims.get("Groups") or []
    if not isinstance(name, str) or not name or not isinstance(groups, list):
        raise Unauthenticated("the token's claims are malformed")
    if not all(isinstance(group, str) for group in groups):
        raise Unauthenticated("the token's claims are malformed")
    return User(name, tuple(groups))


def _keyring(secrets: Secrets, validation: Validation) -> Keyring:
    return Keyring(
        SIGNING_KEY,
        REVOCATIONS,
        "this control plane",
        'GlobalSecret of name "{name}"',
        "kumactl generate user-token",
        secrets,
        validation.keys,
        validation.uses_secrets,
    )


def _secret(name: str, data: bytes) -> Resource[Any]:
    return Resource(kinds.GLOBAL_SECRET.key(name), SecretSpec(data=data))
