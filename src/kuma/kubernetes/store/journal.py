"""What is to be written by a transaction of several objects, noted before the first of them is.

A process that dies in the middle leaves its note; whoever finds it does the rest, or, where others have changed what it
is about, puts back what was there. The note is a Secret, since it may hold what is in Secrets. Admission lets only
control planes write notes; should one come past admission, the seal tells.
"""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import structlog

from kuma.base.errors import AlreadyExists, Conflict, InvalidResource, KumaError, NotFound
from kuma.kubernetes.api import events
from kuma.kubernetes.api.client import ApiError, Object
from kuma.kubernetes.store import seal
from kuma.kubernetes.store.objects import Objects
from kuma.kubernetes.store.plan import Write
from kuma.kubernetes.store.writer import Writer

log = structlog.get_logger(__name__)

TYPE = "system.kuma.io/transaction"
OWN_TYPES = frozenset({TYPE, seal.TYPE})
"""Types of Secrets that only control planes write."""
_LABEL, _SET_ASIDE = "kuma.io/transaction", "set-aside"
_PREFIX = "kuma-transaction-"
_FORMAT = 1
_SOURCE = "kuma.io/control-plane"


class _Unusable(KumaError):
    """A note that must not be carried out; the text says why."""


class Journal:
    """The notes of all transactions of several objects, in the system's namespace."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._path = f"/api/v1/namespaces/{objects.forms.system}/secrets"
        self._seal = seal.Seal(objects.client, self._path)

    def name(self) -> str:
        """A name for another transaction."""
        return f"{_PREFIX}{uuid.uuid4().hex[:16]}"

    async def open(self, name: str, writes: Sequence[Write]) -> None:
        """Notes a transaction."""
        noted = {"format": _FORMAT, "writes": [write.as_json() for write in writes]}
        content = json.dumps(noted, separators=(",", ":")).encode()
        data = {"writes": content, "seal": await self._seal.of(name, content)}
        await self._objects.client.create(
            self._path,
            {
                "apiVersion": "v1", "kind": "Secret", "type": TYPE,
                "metadata": {"name": name, "labels": {_LABEL: "true"}},
                "data": {field: base64.b64encode(value).decode() for field, value in data.items()},
            },
        )  # fmt: skip

    async def close(self, name: str) -> None:
        """Forgets a transaction that is done, or undone."""
        try:
            await self._objects.client.delete(f"{self._path}/{name}")
        except ApiError as error:
            if error.code != 404:
                raise

    async def names(self) -> list[str]:
        """The transactions that are under way, or have been left. Notes that are none of ours are set aside."""
        selected = {"fieldSelector": f"type={TYPE}", "labelSelector": f"{_LABEL}!={_SET_ASIDE}"}
        found, _ = await self._objects.client.list(self._path, **selected)
        return [note["metadata"]["name"] for note in found if await self._read(note) is not None]

    async def finish(self, name: str) -> None:
        """Does the rest of a transaction that has been left, or undoes it if that cannot be done any more."""
        note = await self._objects.client.find(f"{self._path}/{name}")
        writes = await self._read(note) if note is not None and is_note(note) else None
        if writes is None:
            return  # if there is no note, it was not left after all
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

    async def _read(self, note: Object) -> Sequence[Write] | None:
        """Returns what a note says; None if it is not to be carried out, and then it is set aside."""
        try:
            content = await self._sealed(note)
            return self._writes(content)
        except _Unusable as error:
            await self._set_aside(note, str(error))
            return None

    async def _sealed(self, note: Object) -> bytes:
        try:
            data = {field: base64.b64decode(value, validate=True) for field, value in (note.get("data") or {}).items()}
            content, made = data["writes"], data["seal"]
        except (KeyError, ValueError):
            raise _Unusable("it has no content with a seal") from None
        if not await self._seal.holds(note["metadata"]["name"], content, made):
            raise _Unusable("no control plane of this installation has sealed it")
        return content

    def _writes(self, content: bytes) -> Sequence[Write]:
        try:
            noted = json.loads(content)
            if noted["format"] != _FORMAT:
                raise _Unusable("it was written by another version of the control plane")
            writes = [Write.of_json(stored) for stored in noted["writes"]]
            for write in writes:
                self._objects.forms.of(write.key.kind)
        except (KeyError, ValueError, TypeError, AttributeError):
            raise _Unusable("its content is not understood") from None
        return writes

    async def _set_aside(self, note: Object, reason: str) -> None:
        """Marks a note as one that nobody carries out; an administrator looks at it, and deletes it."""
        name = note["metadata"]["name"]
        log.error(
            "the note of a transaction is set aside and not carried out: look at what it is about, then delete it",
            secret=name,
            reason=reason,
        )
        self._objects.client.metrics.set_aside.inc()
        await self._objects.client.merge(f"{self._path}/{name}", {"metadata": {"labels": {_LABEL: _SET_ASIDE}}})
        text = f"not carried out: {reason}"
        await events.tell(self._objects.client, note, _SOURCE, "Warning", "TransactionSetAside", text, kind="Secret")


def is_note(found: Mapping[str, Any]) -> bool:
    """Tells whether an object is the note of a transaction that is to be carried out."""
    return found.get("type") == TYPE and not is_set_aside(found)


def is_set_aside(found: Mapping[str, Any]) -> bool:
    """Tells whether an object is a note that nobody carries out."""
    return found.get("type") == TYPE and (found["metadata"].get("labels") or {}).get(_LABEL) == _SET_ASIDE
