"""Plans a transaction: looks whether all of it can be done, before any of it is.

The Kubernetes API changes one object at a time. What a plan has found is found again by each write: it names the
version, or the identity, of the object that it is about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from kuma.base.errors import AlreadyExists, Conflict, NotFound
from kuma.kubernetes.api.client import Object
from kuma.kubernetes.objects import content
from kuma.kubernetes.objects.forms import Forms
from kuma.kubernetes.store.objects import Objects
from kuma.resources.resource import Key
from kuma.store.protocol import Create, Delete, Expect, ExpectAll, Operation, StillOwns, Update, state


@dataclass(frozen=True, slots=True)
class Write:
    """One change of one object. `before` is the object as it was; `owner` is who it is to belong to."""

    verb: Literal["create", "replace", "delete"]
    key: Key
    body: Object
    before: Object | None = None
    owner: Key | None = None

    def as_json(self) -> dict[str, Any]:
        """A form that can be stored."""
        owner = [self.owner.kind, self.owner.mesh, self.owner.name] if self.owner else None
        key = [self.key.kind, self.key.mesh, self.key.name]
        return {"verb": self.verb, "key": key, "body": self.body, "before": self.before, "owner": owner}

    @classmethod
    def of_json(cls, stored: Mapping[str, Any]) -> Write:
        """The write that has been stored."""
        owner = Key(*stored["owner"]) if stored["owner"] else None
        return cls(stored["verb"], Key(*stored["key"]), stored["body"], stored["before"], owner)


class Planner:
    """Plans one transaction."""

    def __init__(self, objects: Objects, forms: Forms) -> None:
        self._objects = objects
        self._forms = forms
        self._known: dict[Key, Object | None] = {}
        self._writes: list[Write] = []

    async def plan(self, operations: Sequence[Operation]) -> list[Write]:
        """Returns the writes that do all operations.

        Raises:
            AlreadyExists, Conflict, NotFound, StillOwns: an operation cannot be done; see `kuma.store.protocol`.
        """
        self._known = await self._objects.find_all(list(dict.fromkeys(_keys(operations))))
        for operation in operations:
            if isinstance(operation, Create):
                self._create(operation)
            elif isinstance(operation, Update):
                self._update(operation)
            elif isinstance(operation, Delete):
                await self._delete(operation)
            elif isinstance(operation, ExpectAll):
                await self._expect_all(operation)
            else:
                self._expect(operation)
        return self._writes

    def _create(self, operation: Create) -> None:
        resource, owner = operation.resource, operation.owner
        if owner is not None and self._known[owner] is None:
            raise NotFound(f"{owner} not found, to which {resource.key} is to belong")
        if self._known[resource.key] is not None:
            raise AlreadyExists(f"{resource.key} already exists")
        body = content.encode(self._forms.of(resource.key.kind), resource)
        body["metadata"].pop("resourceVersion", None)
        self._add(Write("create", resource.key, body, owner=owner), after=body)

    def _update(self, operation: Update) -> None:
        resource = operation.resource
        before = self._expected(resource.key, resource.version)
        body = content.encode(self._forms.of(resource.key.kind), resource, before)
        after = {**body, "metadata": {**body["metadata"], "resourceVersion": "0"}}  # nobody has read what it will be
        self._add(Write("replace", resource.key, body, before), after=after)

    def _expected(self, key: Key, version: int) -> Object:
        found = self._known[key]
        if found is None or int(found["metadata"].get("resourceVersion") or 0) != version or not version:
            raise Conflict(f"{key} has been changed by somebody else")
        return found

    def _expect(self, operation: Expect) -> None:
        if operation.version:
            self._expected(operation.key, operation.version)
        elif self._known[operation.key] is not None:
            raise Conflict(f"{operation.key} has been changed by somebody else")

    async def _expect_all(self, operation: ExpectAll) -> None:
        found = await self._objects.all(operation.kind)
        stored = {resource.name: state(resource) for resource in found if resource.mesh == operation.mesh}
        if stored != operation.expected:
            raise Conflict(f"what there is of {operation.kind} in mesh {operation.mesh} has been changed meanwhile")

    async def _delete(self, operation: Delete) -> None:
        found = self._known[operation.key]
        if found is None:
            raise NotFound(f"{operation.key} not found")
        tree = await self._tree(operation.key, found)
        for key, _ in tree:
            if key.kind == operation.unless_owns:
                raise StillOwns(f"{operation.key} still owns {key}")
        for key, one in (*tree, (operation.key, found)):
            self._add(Write("delete", key, {}, one), after=None)

    async def _tree(self, key: Key, found: Object) -> list[tuple[Key, Object]]:
        """Returns what belongs to an object, directly or not: first what belongs to others of it."""
        uid = found["metadata"].get("uid")
        if uid is None:  # made by this transaction
            return []
        tree: list[tuple[Key, Object]] = []
        for owned in await self._objects.owned(key, uid):
            tree += [pair for pair in (*await self._tree(*owned), owned) if pair not in tree]
        return tree

    def _add(self, write: Write, *, after: Object | None) -> None:
        self._writes.append(write)
        self._known[write.key] = after


def _keys(operations: Sequence[Operation]) -> list[Key]:
    found: list[Key] = []
    for operation in operations:
        if isinstance(operation, Create):
            found += [operation.resource.key, *([operation.owner] if operation.owner else [])]
        elif not isinstance(operation, ExpectAll):
            found.append(operation.resource.key if isinstance(operation, Update) else operation.key)
    return found
