"""The driver of one type of CA backend: everything that depends on the type, and nothing else does.

A driver that overrides only `content` and `open` is that of a remote authority: the control plane holds neither its
certificate nor its key, keeps no Secrets for it, and does not renew its root.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from kuma.base.clock import Clock
from kuma.pki.authority import Authority, AuthorityUnusable
from kuma.resources.models.mesh import Backend
from kuma.resources.models.secret import Secrets
from kuma.resources.view import MeshView
from kuma.store.protocol import AnyResource, Store

Content = tuple[object, ...]
"""What an authority is made of: while it is equal, the authority is the same and is not opened again."""


@dataclass(frozen=True, slots=True)
class Root:
    """The Secrets of a root: the `existing` ones, which must stay until the Mesh is stored, and those to `create`."""

    existing: Sequence[AnyResource] = ()
    create: Sequence[AnyResource] = ()


class Driver(ABC):
    """One type of CA backend."""

    makes_root = False
    """The control plane makes the root, keeps it in Secrets of its own, and renews it."""

    @abstractmethod
    def content(self, mesh: str, backend: Backend, secrets: Secrets) -> Content:
        """Returns what identifies the authority, such as its configuration if its key is elsewhere.

        Raises:
            AuthorityUnusable: it cannot be loaded.
        """

    @abstractmethod
    def open(self, mesh: str, backend: Backend, secrets: Secrets) -> Authority:
        """Opens the authority that a backend describes.

        Raises:
            AuthorityUnusable: what it is made of is missing or broken.
        """

    def used_secrets(self, mesh: str, backend: Backend) -> tuple[str, ...]:
        """Returns the names of the Secrets that the authority is made of."""
        return ()

    def halves(self, mesh: str, backend: Backend) -> tuple[str, str]:
        """Returns the names of the Secrets with the certificate and the key; empty for one that is in none."""
        return "", ""

    def pair(self, mesh: str, backend: Backend, secrets: Secrets) -> tuple[bytes, bytes] | None:
        """Returns certificates and key in PEM; None if the control plane does not hold them.

        Raises:
            AuthorityUnusable: one cannot be loaded.
        """
        return None

    async def root(self, mesh: str, backend: Backend, path: str, store: Store, clock: Clock) -> Root:
        """Makes the root of a listed backend if the control plane is to; `path` is the backend's in the Mesh.

        Raises:
            InvalidResource: half of it is missing.
            Conflict: it is being removed.
        """
        return Root()

    def renewal_due(self, view: MeshView, backend: Backend, now: datetime) -> datetime | None:
        """Returns when the control plane should renew the root; None if it should not, or cannot read it."""
        return None

    async def renewed(self, mesh: str, backend: Backend, clock: Clock) -> Sequence[AnyResource]:
        """Makes the Secrets of a new root, to replace those in use."""
        return ()

    def stored(self, mesh: str, secrets: Secrets) -> Mapping[str, tuple[str, ...]]:
        """Returns the Secrets that the control plane keeps, by the name of their backend, listed in the Mesh or not."""
        return {}

    def open_stored(self, mesh: str, name: str, secrets: Secrets) -> Authority:
        """Opens the authority of a backend that `stored` names.

        Raises:
            AuthorityUnusable: a Secret is missing or broken.
        """
        raise AuthorityUnusable(f'nothing of backend "{name}" in mesh "{mesh}" is stored')
