"""Does the writes of a transaction, and undoes them."""

from __future__ import annotations

from typing import Any, NamedTuple

from kuma.base.errors import AlreadyExists, Conflict, InvalidResource, NotFound, Unavailable
from kuma.kubernetes.api.client import ApiClient, ApiError, Object
from kuma.kubernetes.objects.forms import Forms
from kuma.kubernetes.store.objects import Objects
from kuma.kubernetes.store.plan import Write
from kuma.resources.resource import Key

TRANSACTION = "kuma.io/transaction"
"""Annotation of an object: the transaction of several objects that wrote it last."""
_OF_THE_SERVER = ("uid", "resourceVersion", "creationTimestamp", "generation", "managedFields", "deletionTimestamp")


class Written(NamedTuple):
    """Outcome of a write: the object as it is stored, None if it is deleted."""

    found: Object | None
    told: bool
    """Whether the watch will tell of it: not of what was so already, nor yet of what a finalizer holds back."""


class Writer:
    """Does and undoes single writes; `transaction` marks those that belong to one of several objects.

    A write that has been done already, by a process that has died since, is found by that mark and not done again.
    """

    def __init__(self, objects: Objects, transaction: str = "") -> None:
        self._objects = objects
        self._client: ApiClient = objects.client
        self._forms: Forms = objects.forms
        self._transaction = transaction

    async def do(self, write: Write) -> Written:
        """Does a write.

        Raises:
            AlreadyExists, Conflict, NotFound: others have changed what it is about.
            InvalidResource: the API server, or a webhook, refuses the object.
            Unavailable: there is no answer, or the control plane is not allowed to do this.
        """
        try:
            if write.verb == "create":
                return Written(await self._create(write), told=True)
            if write.verb == "replace":
                found = await self._replace(write)
                return Written(found, told=not _is_as_it_was(found, write.before))
            return Written(None, told=await self._delete(write))
        except ApiError as error:
            raise _translated(write.key, error) from None

    async def undo(self, write: Write) -> None:
        """Puts back what a write has found, unless somebody else has changed it since, or it was not done."""
        found = await self._objects.find(write.key)
        if write.verb == "delete":
            if found is None and write.before is not None:
                await self._client.create(self._forms.of(write.key.kind).place(write.key), _anew(write.before))
        elif found is not None and self._is_ours(found) and self._is_as_written(found, write):
            if write.before is None:
                await self._client.delete(self._path(write.key), uid=found["metadata"]["uid"])
            else:
                version = {"resourceVersion": found["metadata"]["resourceVersion"]}
                metadata = {**write.before["metadata"], **version}
                await self._client.replace(self._path(write.key), {**write.before, "metadata": metadata})

    async def _create(self, write: Write) -> Object:
        body = self._marked(write.body)
        if write.owner is not None:
            body["metadata"]["ownerReferences"] = [await self._reference(write.owner)]
        try:
            return await self._client.create(self._forms.of(write.key.kind).place(write.key), body)
        except ApiError as error:
            found = await self._objects.find(write.key) if error.code == 409 else None
            if found is not None and self._is_ours(found):
                return found
            raise

    async def _replace(self, write: Write) -> Object:
        try:
            return await self._client.replace(self._path(write.key), self._marked(write.body))
        except ApiError as error:
            found = await self._objects.find(write.key) if error.code == 409 else None
            if found is not None and self._is_ours(found):
                return found
            if error.code == 404:
                raise Conflict(f"{write.key} has been deleted by somebody else") from None
            raise

    async def _delete(self, write: Write) -> bool:
        """Returns whether it is this that has deleted the object: it may have gone before, or have to wait."""
        uid = write.before["metadata"].get("uid") if write.before else None
        try:
            answer = await self._client.delete(self._path(write.key), **({"uid": uid} if uid else {}))
        except ApiError as error:
            if error.code != 404:  # it is gone, and that was wanted
                raise
            return False
        return not (answer.get("metadata") or {}).get("deletionTimestamp")

    async def _reference(self, owner: Key) -> Object:
        found = await self._objects.find(owner)
        if found is None:
            raise NotFound(f"{owner} not found")
        metadata = found["metadata"]
        named = {"apiVersion": found["apiVersion"], "kind": found["kind"]}
        return {**named, "name": metadata["name"], "uid": metadata["uid"]}

    def _path(self, key: Key) -> str:
        return self._forms.of(key.kind).path(key)

    def _marked(self, body: Object) -> Object:
        metadata: dict[str, Any] = dict(body["metadata"])
        if self._transaction:
            metadata["annotations"] = {**(metadata.get("annotations") or {}), TRANSACTION: self._transaction}
        return {**body, "metadata": metadata}

    def _is_as_written(self, found: Object, write: Write) -> bool:
        """Tells whether nobody has changed what an object holds; the mark stays when others do."""
        content = self._forms.of(write.key.kind).content
        field = content if content in ("spec", "status") else "data"
        return bool(found.get(field) == write.body.get(field))

    def _is_ours(self, found: Object) -> bool:
        mark = (found["metadata"].get("annotations") or {}).get(TRANSACTION)
        return bool(self._transaction) and mark == self._transaction


def _anew(before: Object) -> Object:
    """Returns an object as it can be created again."""
    metadata = {name: value for name, value in before["metadata"].items() if name not in _OF_THE_SERVER}
    return {**before, "metadata": metadata}


def _is_as_it_was(found: Object, before: Object | None) -> bool:
    """Tells whether a write has changed nothing: the API server makes no new version of it, and tells nobody."""
    return before is not None and before["metadata"]["resourceVersion"] == found["metadata"]["resourceVersion"]


def _translated(key: Key, error: ApiError) -> Exception:
    if error.reason == "AlreadyExists":
        return AlreadyExists(f"{key} already exists")
    if error.code == 409:
        return Conflict(f"{key} has been changed by somebody else")
    if error.code == 404:
        return NotFound(f"{key} has no place in the Kubernetes API: {error}")
    if error.code in (400, 422):
        return InvalidResource.of("", f"the Kubernetes API refuses {key}: {error}")
    return Unavailable(f"the Kubernetes API refuses {key}: {error}")
