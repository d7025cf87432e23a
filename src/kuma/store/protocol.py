"""Contract of a store. One suite, `tests/conformance/test_store.py`, holds every store to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from kuma.base.errors import KumaError, NotFound
from kuma.resources.resource import Key, Resource

AnyResource = Resource[Any]


@dataclass(frozen=True, slots=True)
class Create:
    """Store a resource that does not exist. It is deleted together with `owner`, which has to exist.

    Raises:
        AlreadyExists: it exists.
        NotFound: the owner does not.
    """

    resource: AnyResource
    owner: Key | None = None


@dataclass(frozen=True, slots=True)
class Update:
    """Replace a resource; `resource.version` is the version that was read.

    Raises:
        Conflict: somebody else has written or deleted it since.
    """

    resource: AnyResource


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete a resource and all that it owns, directly or not.

    Raises:
        NotFound: it does not exist.
        StillOwns: it owns a resource of the kind `unless_owns`.
    """

    key: Key
    unless_owns: str = ""


@dataclass(frozen=True, slots=True)
class Expect:
    """Do the rest only if a resource still has the version that was read; 0 means that it does not exist.

    Raises:
        Conflict: it has another one.
    """

    key: Key
    version: int


@dataclass(frozen=True, slots=True)
class ExpectAll:
    """Do the rest only if those that were read are still all resources of a kind in a mesh, as they were read.

    Raises:
        Conflict: one of them has changed or gone, or another one has come.
    """

    kind: str
    mesh: str
    read: tuple[AnyResource, ...]

    @property
    def expected(self) -> Mapping[str, tuple[int, datetime]]:
        """What has to be stored, by name: see `state`."""
        return {resource.name: state(resource) for resource in self.read}


def state(resource: AnyResource) -> tuple[int, datetime]:
    """Tells a resource from what it was before, even if it was deleted and made again."""
    return resource.version, resource.creation_time


Check = Expect | ExpectAll
Operation = Create | Update | Delete | Check


@dataclass(frozen=True, slots=True)
class Page:
    """Part of a list, ordered by mesh and name; `total` counts the whole."""

    items: tuple[AnyResource, ...]
    total: int


@dataclass(frozen=True, slots=True)
class Put:
    """A resource was created or replaced; `created` is only told to recorders, by a store whose versions do not."""

    resource: AnyResource
    created: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class Removed:
    """A resource was deleted."""

    key: Key


@dataclass(frozen=True, slots=True)
class Listing:
    """Everything stored at `revision`, with which a watch begins."""

    revision: int
    resources: tuple[AnyResource, ...]


@dataclass(frozen=True, slots=True)
class Commit:
    """Everything that one transaction changed, in its order. Revisions grow; none is given twice."""

    revision: int
    changes: tuple[Put | Removed, ...]


class StillOwns(KumaError):
    """The resource owns others that its deletion must not take away."""


class RevisionTooOld(KumaError):
    """The changes since that revision are no longer kept: watch anew from a listing."""


class Store(Protocol):
    """A place for resources. What was acknowledged survives kill -9; what was refused has changed nothing."""

    async def get(self, key: Key) -> AnyResource:
        """Returns the resource.

        Raises:
            NotFound: there is none.
            StoreCorrupt: what is stored cannot be opened.
        """
        ...

    async def list(
        self, kind: str, mesh: str | None = None, *, name_contains: str = "", offset: int = 0, limit: int | None = None
    ) -> Page:
        """Resources of a kind, in one mesh or (None) in all."""
        ...

    async def transact(self, operations: Sequence[Operation]) -> tuple[AnyResource, ...]:
        """Do all operations or none; returns what `Create` and `Update` stored, in their order.

        The store sets `version`, `creation_time` and `modification_time`.
        """
        ...

    def watch(self, since: int | None = None) -> AsyncIterator[Listing | Commit]:
        """Changes as they are committed: first a `Listing`, or, after `since`, the commits that followed it.

        Raises:
            RevisionTooOld: the commits after `since` are no longer all known.
        """
        ...

    async def close(self) -> None:
        """Release what the store holds."""
        ...


async def find(store: Store, key: Key) -> AnyResource | None:
    """Returns the resource, or None if there is none; see `Store.get`."""
    try:
        return await store.get(key)
    except NotFound:
        return None
