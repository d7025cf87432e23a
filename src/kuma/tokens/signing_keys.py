"""Signing keys of tokens, and the tokens that are revoked: Secrets, several keys at once, chosen by number."""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.utils import base64url_decode

from kuma.base.errors import NoSigningKey, Unauthenticated, Unavailable
from kuma.base.tls import private_keys
from kuma.base.values import strict_json
from kuma.resources.models.secret import Secrets
from kuma.tokens.validation import PublicKeys

ALGORITHM = "RS256"
"""The only one. The token's header is never asked which one to use (RFC 8725 §3.1)."""
KEY_BITS = 2048
LARGEST_KEY = 4096
"""Bits of a key that is written today: signing one token with 8192 takes 50 ms."""
_BACKDATED = timedelta(minutes=5)
LEEWAY = timedelta(minutes=1)
"""How long before its begin a token holds already: clocks differ (RFC 7519 §4.1.5). None is given after its end."""
HEADER, PAYLOAD = 0, 1
"""Parts of a token, which dots separate (RFC 7515 §7.1)."""
_PARTS = 3
_SERIAL = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)


class Expired(Unauthenticated):
    """A token is right in all but its end, which has passed: it is none that was forged or revoked."""

    def __init__(self, text: str, claims: Mapping[str, Any]) -> None:
        super().__init__(text)
        self.claims = claims


class NotValidYet(Unauthenticated):
    """A token holds but for its begin: it is of later, or the clock is behind."""


async def new_key() -> bytes:
    """Returns a new signing key, in the original's form (PEM of PKCS#1)."""
    key = await asyncio.to_thread(rsa.generate_private_key, 65537, KEY_BITS)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )


@dataclass(frozen=True, slots=True)
class Keyring:
    """The keys of one kind of token, in Secrets called `<prefix>-<number>`; the greatest number signs, all verify.

    `revocations` names the Secret that lists revoked tokens by their `jti`, separated by commas. `owner` is whom the
    keys belong to, `where` says of what a `{name}` is a Secret, and `remedy` how a new token is made: for messages.
    """

    prefix: str
    revocations: str
    owner: str
    where: str
    remedy: str
    secrets: Secrets = field(repr=False)
    public_keys: PublicKeys = field(default_factory=dict)
    """Further keys that verify, by what tokens name them."""
    uses_secrets: bool = True
    """Whether the keys in Secrets verify."""

    def sign(self, claims: Mapping[str, Any], valid_for: timedelta, now: datetime) -> str:
        """Returns a token with these claims.

        Raises:
            NoSigningKey: there is no key.
            Unavailable: the newest one is none that can sign.
        """
        serial = max(self._serials(), default=0)
        if not serial:
            raise NoSigningKey(
                f"there is no signing key with KID 1. {self.where.format(name=f'{self.prefix}-1')} is not found. "
                "If signing key was rotated, regenerate the token"
            )
        key = self._key(serial)
        if key is None:
            raise Unavailable(f"no token can be issued: {self._unusable(serial)}")
        times = {
            "exp": int((now + valid_for).timestamp()),
            "nbf": int((now - _BACKDATED).timestamp()),
            "iat": int(now.timestamp()),
        }
        whole = {**claims, **times, "jti": str(uuid.uuid4())}
        return jwt.encode(whole, key, algorithm=ALGORITHM, headers={"kid": str(serial)})

    def verify(self, token: str, now: datetime) -> Mapping[str, Any]:
        """Returns the claims of a token.

        Raises:
            Unauthenticated: it is forged, malformed, revoked, signed by none of these keys, not valid yet or no longer;
                in the last case, and if nothing else is wrong with it, it is `Expired`.
        """
        try:
            kid = unverified(token, HEADER).get("kid")
            claims = self._decoded(token, self._candidates(kid if isinstance(kid, str) else ""))
            strict_json.check(claims)
        except ValueError:
            raise Unauthenticated("the token's claims are malformed") from None
        except jwt.InvalidTokenError as error:
            raise Unauthenticated(f"{_words(error)}; make a new one with `{self.remedy}`") from None
        if "jti" in claims and str(claims["jti"]) in self._revoked():
            raise Unauthenticated(f"the token has been revoked; make a new one with `{self.remedy}`")
        self._check_times(claims, now)
        return claims

    @property
    def material(self) -> Secrets:
        """The Secrets by which it is decided whether a token holds."""
        prefix = f"{self.prefix}-"
        return {n: secret for n, secret in self.secrets.items() if n == self.revocations or n.startswith(prefix)}

    def _candidates(self, kid: str) -> tuple[rsa.RSAPublicKey, ...]:
        """Returns the keys that a token may mean: that of the settings, and that in a Secret.

        Raises:
            Unauthenticated: there is none.
        """
        serial = int(kid) if _SERIAL.fullmatch(kid) else 0
        found = [self.public_keys[kid]] if kid in self.public_keys else []
        if self.uses_secrets and f"{self.prefix}-{serial}" in self.secrets:
            key = self._key(serial)
            if key is None and not found:
                raise Unauthenticated(f"the token cannot be verified: {self._unusable(serial)}")
            found += [key.public_key()] if key is not None else []
        if not found:
            raise Unauthenticated(f"the token is signed by a key that {self.owner} does not have")
        return tuple(found)

    def _decoded(self, token: str, candidates: tuple[rsa.RSAPublicKey, ...]) -> Mapping[str, Any]:
        """Returns the claims of a token that one of these keys has signed; of the last, why it has not."""
        # Times are checked elsewhere, against the clock that everything else goes by.
        options: Any = {"verify_exp": False, "verify_nbf": False, "verify_iat": False, "verify_aud": False}
        *others, last = candidates
        for key in others:
            with suppress(jwt.InvalidSignatureError):
                found: Mapping[str, Any] = jwt.decode(token, key, algorithms=[ALGORITHM], options=options)
                return found
        claims: Mapping[str, Any] = jwt.decode(token, last, algorithms=[ALGORITHM], options=options)
        return claims

    def _check_times(self, claims: Mapping[str, Any], now: datetime) -> None:
        exp, nbf = claims.get("exp"), claims.get("nbf", 0)
        if not isinstance(exp, int) or not isinstance(nbf, int):
            raise Unauthenticated("the token does not say until when it is valid")
        if now.timestamp() >= exp:
            raise Expired(f"the token has expired; make a new one with `{self.remedy}`", claims)
        if (now + LEEWAY).timestamp() < nbf:
            raise NotValidYet(f"the token is not valid yet: in {nbf - int(now.timestamp())} seconds")

    def _revoked(self) -> frozenset[str]:
        found = self.secrets.get(self.revocations)
        text = found.spec.data.decode(errors="replace") if found else ""
        return frozenset(jti.strip() for jti in text.split(","))

    def _serials(self) -> list[int]:
        found = (name.removeprefix(f"{self.prefix}-") for name in self.secrets if name.startswith(f"{self.prefix}-"))
        return [int(serial) for serial in found if _SERIAL.fullmatch(serial)]

    @property
    def can_sign(self) -> bool:
        """Tells whether there is a key to issue tokens with."""
        return self._key(max(self._serials(), default=0)) is not None

    @property
    def next_serial(self) -> int:
        """The number of a key that is newer than all others."""
        return max(self._serials(), default=0) + 1

    def _key(self, serial: int) -> rsa.RSAPrivateKey | None:
        found = self.secrets.get(f"{self.prefix}-{serial}")
        return parsed(found.spec.data) if found else None

    def _unusable(self, serial: int) -> str:
        return f'Secret "{self.prefix}-{serial}" of {self.owner} does not hold an RSA key in PEM'


def unverified(token: str, part: int) -> Mapping[str, Any]:
    """Returns the `HEADER` or the `PAYLOAD` of a token as it says: nothing about it is known to be true.

    The library would look at the whole token for that, character by character.

    Raises:
        jwt.DecodeError: it is no token.
    """
    parts = token.split(".")
    try:
        found = json.loads(base64url_decode(parts[part])) if len(parts) == _PARTS else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise jwt.DecodeError("no token")
    return found


def described(token: str) -> Mapping[str, object]:
    """Describes an issued token for the audit record: enough to revoke it, and nothing to use it."""
    claims = jwt.decode(token, options={"verify_signature": False})
    expires = datetime.fromtimestamp(claims["exp"], UTC).isoformat()
    return {"jti": claims["jti"], "kid": jwt.get_unverified_header(token)["kid"], "expires": expires}


def _words(error: jwt.InvalidTokenError) -> str:
    """Describes what is wrong with a token in our own words, because the library's name its parts."""
    if isinstance(error, jwt.InvalidSignatureError):
        return "the token does not hold: its signature is not by the key that it names"
    if isinstance(error, jwt.InvalidAlgorithmError):
        return f"the token does not hold: it is not signed with {ALGORITHM}"
    return "the token is damaged, or no token at all"


@lru_cache(maxsize=64)
def parsed(pem: bytes) -> rsa.RSAPrivateKey | None:
    """Returns the key in `pem`, if that is an RSA key which is not too large to be used."""
    try:
        key = private_keys.load(pem)
    except private_keys.UnusableKey:
        return None
    return key if isinstance(key, rsa.RSAPrivateKey) else None
