"""Sessions of the console: a user token, sealed in a cookie. The token is verified anew for each request.

So a session ends when its token is revoked or ends, on every control plane at once, and none has to be kept. Sealed,
because cookies know no ports: what another server on the same host is sent must be of no use at the API.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from kuma.base.clock import Clock
from kuma.base.errors import InvalidResource, Unauthenticated
from kuma.console import sealing
from kuma.console.sealing import SharedKey
from kuma.store.protocol import Store

LIFETIME = timedelta(hours=12)
"""After this a session ends even if its token holds: who has left a browser open is signed in no more."""
_LONGEST = 3800
"""Characters: browsers drop cookies of more than 4,096 bytes with their names and attributes, without a word."""
_PURPOSE = b"session of the console"


@dataclass(frozen=True, slots=True)
class Session:
    """A session that holds: the token in it, and what forms prove by that they are its own."""

    token: str
    proof: str


class Sessions:
    """Opens and seals sessions, under a key that all control planes over a store share: a GlobalSecret."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._key = SharedKey(store)
        self._clock = clock

    async def seal(self, token: str) -> str:
        """Returns the cookie of a new session.

        Raises:
            InvalidResource: the token is too long for a cookie.
        """
        content = json.dumps({"token": token, "began": self._clock.now().timestamp()}).encode()
        cookie = base64.urlsafe_b64encode(sealing.sealed(await self._key.get(), content, _PURPOSE)).decode()
        if len(cookie) > _LONGEST:
            raise InvalidResource.of("token", "is too long for a cookie; sign in with one of fewer groups")
        return cookie

    async def open(self, cookie: str) -> Session:
        """Opens the session in a cookie.

        Raises:
            Unauthenticated: it is none of ours, or too old.
        """
        key = await self._key.find()
        content = _unsealed(key, cookie) if key else None
        if key is None or content is None:
            raise Unauthenticated("the session does not hold; sign in again")
        began = datetime.fromtimestamp(content["began"], UTC)
        if not began - timedelta(minutes=5) <= self._clock.now() < began + LIFETIME:
            raise Unauthenticated(f"the session has ended after {LIFETIME // timedelta(hours=1)} hours; sign in again")
        return Session(content["token"], hmac.new(key, cookie.encode(), hashlib.sha256).hexdigest())


def _unsealed(key: bytes, cookie: str) -> dict[str, Any] | None:
    with suppress(binascii.Error, ValueError):
        content = sealing.opened(key, base64.urlsafe_b64decode(cookie.encode()), _PURPOSE)
        if content is not None:
            found: dict[str, Any] = json.loads(content)
            return found
    return None
