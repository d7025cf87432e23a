"""Rules for Secrets that tokens depend on: signing keys must be able to sign, lists of revoked tokens readable."""

from __future__ import annotations

import re
from collections.abc import Iterator

from cryptography.hazmat.primitives.asymmetric import rsa

from kuma.base import private_keys
from kuma.base.errors import InvalidResource, Violation
from kuma.resources.models.secret import SecretSpec
from kuma.resources.resource import Resource
from kuma.store.manager import Decision, Rules
from kuma.store.protocol import Store
from kuma.tokens import signing_keys

_KEY = re.compile(r"(user-token|zone-token|dataplane-token)-signing-key(-.*)?", re.ASCII)
_REVOCATIONS = re.compile(r"(user-token-revocations|zone-token-revocations|dataplane-token-revocations-.*)", re.ASCII)
_JTI = re.compile(r"[!-+\--~]{1,200}", re.ASCII)


class TokenRules:
    """Refuses changes that would keep every token from being issued or verified; `then` judges everything else."""

    def __init__(self, then: Rules | None = None) -> None:
        self._then = then

    async def on_put(self, old: Resource[SecretSpec] | None, new: Resource[SecretSpec], store: Store) -> Decision:
        violations = tuple(_violations(new.name, new.spec.data))
        if violations:
            raise InvalidResource(violations)
        return await self._then.on_put(old, new, store) if self._then else Decision()

    async def on_delete(self, old: Resource[SecretSpec], store: Store) -> Decision:
        return await self._then.on_delete(old, store) if self._then else Decision()


def _violations(name: str, data: bytes) -> Iterator[Violation]:
    if _KEY.fullmatch(name):
        try:
            key = private_keys.load(data)
        except private_keys.TooLarge as error:
            yield Violation("data", f"{error}; for tokens {signing_keys.LARGEST_KEY} at most")
            return
        except private_keys.UnusableKey:
            key = None
        if not isinstance(key, rsa.RSAPrivateKey):
            yield Violation("data", "has to be an RSA key in PEM, as `kumactl generate signing-key` makes one")
        elif key.key_size < signing_keys.KEY_BITS:
            yield Violation("data", f"the key has {key.key_size} bits; {signing_keys.KEY_BITS} are needed")
        elif key.key_size > signing_keys.LARGEST_KEY:
            yield Violation("data", f"the key has {key.key_size} bits; {signing_keys.LARGEST_KEY} are the most")
    elif _REVOCATIONS.fullmatch(name):
        try:
            revoked = [part.strip() for part in data.decode().split(",")]
        except UnicodeDecodeError:
            revoked = ["\0"]
        if any(jti and not _JTI.fullmatch(jti) for jti in revoked):
            yield Violation("data", "has to be a list of the `jti` of tokens, separated by commas")
