"""The seal of notes: by it a control plane knows what control planes of its installation have written."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets

import structlog

from kuma.kubernetes.api.client import ApiClient, ApiError, Object

log = structlog.get_logger(__name__)

TYPE = "system.kuma.io/transaction-key"
KEY = "kuma-transaction-key"
"""The Secret with the key of the seal, which all control planes share."""
_LENGTH = 32


class Seal:
    """HMAC-SHA256 (RFC 2104) over the place, the name and the content of a note."""

    def __init__(self, client: ApiClient, secrets_path: str) -> None:
        self._client = client
        self._path = secrets_path
        self._key: bytes | None = None

    async def of(self, name: str, content: bytes) -> bytes:
        """Returns the seal of a note."""
        if self._key is None:
            self._key = await self._read_or_make()
        return self._made(self._key, name, content)

    async def holds(self, name: str, content: bytes, seal: bytes) -> bool:
        """Tells whether a control plane has sealed a note; the key is read again before that is denied."""
        if hmac.compare_digest(await self.of(name, content), seal):
            return True
        self._key = None
        return hmac.compare_digest(await self.of(name, content), seal)

    def _made(self, key: bytes, name: str, content: bytes) -> bytes:
        return hmac.new(key, f"{self._path}/{name}\n".encode() + content, hashlib.sha256).digest()

    async def _read_or_make(self) -> bytes:
        found = await self._client.find(f"{self._path}/{KEY}")
        if found is not None and (key := _key_in(found)) is not None:
            return key
        if found is not None:
            log.error("the key of notes is not one that a control plane has made: it is replaced", secret=KEY)
            await self._client.delete(f"{self._path}/{KEY}", uid=found["metadata"]["uid"])
        made = secrets.token_bytes(_LENGTH)
        body = {
            "apiVersion": "v1", "kind": "Secret", "type": TYPE, "metadata": {"name": KEY},
            "data": {"value": base64.b64encode(made).decode()},
        }  # fmt: skip
        try:
            await self._client.create(self._path, body)
        except ApiError as error:
            other = await self._client.find(f"{self._path}/{KEY}") if error.code == 409 else None
            if other is None or (key := _key_in(other)) is None:
                raise
            return key  # another control plane was faster
        return made


def _key_in(found: Object) -> bytes | None:
    try:
        key = base64.b64decode((found.get("data") or {}).get("value") or "", validate=True)
    except binascii.Error:
        return None
    return key if found.get("type") == TYPE and len(key) == _LENGTH else None
