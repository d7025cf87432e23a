"""Rules for Secrets that tokens depend on: signing keys must be able to sign, lists of revoked tokens readable."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from cryptography.hazmat.primitives.asymmetric import rsa

from kuma.base.errors import InvalidResource, Violation
from kuma.base.tls import private_keys
from kuma.policy import weakening
from kuma.resources import kinds
from kuma.resources.models.mesh import weakening_is_refused
from kuma.resources.models.secret import SecretSpec
from kuma.resources.resource import Resource
from kuma.store.manager import Decision, Rules
from kuma.store.protocol import Store, find
from kuma.tokens import signing_keys

_KEY = re.compile(r"(user-token|zone-token|dataplane-token)-signing-key(-.*)?", re.ASCII)
_REVOCATIONS = re.compile(r"(user-token-revocations|zone-token-revocations|dataplane-token-revocations-.*)", re.ASCII)
_JTI = re.compile(r"[!-+\--~]{1,200}", re.ASCII)


class TokenRules:
    """Refuses changes that would keep every token from being issued or verified; `then` judges everything else.

    That tokens are revoked no more weakens the mesh, or, if they are of users, all that is here.
    """

    def __init__(self, then: Rules | None = None, *, guarded: bool = False) -> None:
        self._then = then
        self._guarded = guarded
        """Whether meshes that do not say so refuse what weakens them."""

    async def on_put(self, old: Resource[SecretSpec] | None, new: Resource[SecretSpec], store: Store) -> Decision:
        violations = tuple(_violations(new.name, new.spec.data))
        if violations:
            raise InvalidResource(violations)
        decision = await self._then.on_put(old, new, store) if self._then else Decision()
        return await self._judged(decision, old, new, store)

    async def on_delete(self, old: Resource[SecretSpec], store: Store) -> Decision:
        decision = await self._then.on_delete(old, store) if self._then else Decision()
        return await self._judged(decision, old, None, store)

    async def _judged(
        self, decision: Decision, old: Resource[SecretSpec] | None, new: Resource[SecretSpec] | None, store: Store
    ) -> Decision:
        """Adds what it weakens that fewer tokens are revoked, and which tokens end with their key."""
        if old is not None and _KEY.fullmatch(old.name) and (new is None or new.spec != old.spec):
            return replace(decision, warnings=(*decision.warnings, _ending(old, replaced=new is not None)))
        if old is None or not _REVOCATIONS.fullmatch(old.name):
            return decision
        weakens = tuple(weakening.of_revocations(_revoked(old), _revoked(new)))
        mesh = await find(store, kinds.MESH.key(old.mesh)) if weakens and old.mesh else None
        guarded = weakening_is_refused(mesh.labels if mesh else {}, self._guarded)
        return replace(decision, weakens=(*decision.weakens, *weakens), guarded=guarded)


def _ending(key: Resource[SecretSpec], *, replaced: bool) -> str:
    """Tells which tokens end with a signing key, and with which consequence."""
    kind, _, serial = key.name.partition("-signing-key")
    serial = serial.rpartition("-")[2]
    consequence, remedy = _CONSEQUENCES[kind]
    what = "is another one now" if replaced else "is gone"
    return (
        f'the key {what}: tokens that it has signed (by their header, "kid": "{serial}") hold no more, '
        f"{consequence}; make new ones with `{remedy}`"
    )


_CONSEQUENCES = {
    "dataplane-token": (
        "and streams of proxies that use one end: they go on with what they have, and get no other certificate",
        "kumactl generate dataplane-token",
    ),
    "user-token": ("and whoever calls the API with one is nobody", "kumactl generate user-token"),
    "zone-token": ("which nothing here asks for", "kumactl generate zone-token"),
}


def _revoked(secret: Resource[SecretSpec] | None) -> tuple[str, ...]:
    """Returns the `jti` that a Secret lists; what was stored before there were rules may be anything."""
    text = secret.spec.data.decode(errors="replace") if secret else ""
    return tuple(jti for part in text.split(",") if (jti := part.strip()))


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
