"""The types of authorities: one driver for each. A new type is a file with its driver and a line in `STANDARD`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from kuma.authorities.builtin import Builtin
from kuma.authorities.driver import Content, Driver
from kuma.authorities.provided import Provided
from kuma.pki.authority import Authority, AuthorityUnusable
from kuma.resources import kinds
from kuma.resources.models.mesh import Backend
from kuma.resources.models.secret import Secrets
from kuma.store.protocol import Store, find


class Drivers:
    """The drivers that are installed, by the `type` of the backends they are for."""

    def __init__(self, by_type: Mapping[str, Driver]) -> None:
        self.by_type = by_type

    def __iter__(self) -> Iterator[Driver]:
        return iter(self.by_type.values())

    def of(self, backend: Backend) -> Driver:
        """Returns the driver of a backend; one of a type that is not installed can be neither loaded nor opened."""
        return self.by_type.get(backend.type) or _Missing()

    async def stored_secrets(self, mesh: str, backend: Backend, store: Store) -> Secrets:
        """Reads the Secrets that an authority is made of, by their names; missing ones are left out."""
        names = self.of(backend).used_secrets(mesh, backend)
        found = {name: await find(store, kinds.SECRET.key(name, mesh)) for name in names}
        return {name: secret for name, secret in found.items() if secret is not None}


class _Missing(Driver):
    def content(self, mesh: str, backend: Backend, secrets: Secrets) -> Content:
        raise AuthorityUnusable(f'there is no driver for backends of the type "{backend.type}"')

    def open(self, mesh: str, backend: Backend, secrets: Secrets) -> Authority:
        raise AuthorityUnusable(f'there is no driver for backends of the type "{backend.type}"')


STANDARD = Drivers(
    {
        "builtin": Builtin(),
        "provided": Provided(),
    }
)
