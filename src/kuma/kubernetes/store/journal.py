"""What is to be written by a transaction of several objects, noted before the first of them is.

A process that dies in the middle leaves its note; whoever finds it does the rest, or, where others have changed what it
is about, puts back what was there. The note is a Secret, since it may hold what is in Secrets.
"""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Sequence

import structlog

from kuma.base.errors import AlreadyExists, Conflict, InvalidResource, NotFound
from kuma.kubernetes.api.client import ApiError, Object
from kuma.kubernetes.store.objects import Objects
from kuma.kubernetes.store.plan import Write
from kuma.kubernetes.store.writer import Writer

log = structlog.get_logger(__name__)

TYPE = "system.kuma.io/transaction"
_LABEL = "kuma.io/transaction"
_PREFIX = "kuma-transaction-"


class Journal:
    """The notes of all transactions of several objects, in the system's namespace."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._path = f"/api/v1/namespaces/{objects.forms.system}/secrets"

    async def open(self, writes: Sequence[Write]) -> str:
        """Notes a transaction, and returns its name."""
        name = f"{_PREFIX}{uuid.uuid4().hex[:16]}"
        noted = json.dumps([write.as_json() for write in writes], separators=(",", ":")).encode()
        metadata = {"name": name, "labels": {_LABEL: "true"}}
        await self._objects.client.create(
            self._path,
            {
                "apiVersion": "v1", "kind": "Secret", "type": TYPE, "metadata": metadata,
                "data": {"writes": base64.b64encode(noted).decode()},
            },
        )  # fmt: skip
        return name

    async def close(self, name: str) -> None:
        """Forgets a transaction that is done, or undone."""
        try:
            await self._objects.client.delete(f"{self._path}/{name}")
        except ApiError as error:
            if error.code != 404:
                raise

    async def names(self) -> list[str]:
        """The transactions that are under way, or have been left."""
        found, _ = await self._objects.client.list(self._path, labelSelector=f"{_LABEL}=true")
        return [note["metadata"]["name"] for note in found]

    async def finish(self, name: str) -> None:
        """Does the rest of a transaction that has been left, or undoes it if that cannot be done any more."""
        try:
            note = await self._objects.client.get(f"{self._path}/{name}")
        except ApiError as error:
            if error.code == 404:
                return  # it was not left after all
            raise
        writes = [Write.of_json(stored) for stored in json.loads(base64.b64decode(note["data"]["writes"]))]
        writer = Writer(self._objects, name)
        try:
            for write in writes:
                await writer.do(write)
            log.warning("a transaction that was left half done has been completed", transaction=name)
        except (AlreadyExists, Conflict, InvalidResource, NotFound) as error:
            for write in reversed(writes):
                await writer.undo(write)
            log.warning("a transaction that was left half done has been undone", transaction=name, reason=str(error))
        await self.close(name)


def is_note(found: Object) -> bool:
    """Tells whether an object is the note of a transaction."""
    return found.get("kind") == "Secret" and found.get("type") == TYPE
