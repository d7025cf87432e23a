"""Remembers where Envoys have their administration: by the word of their proxies, as long as their Dataplanes last."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Set
from typing import NamedTuple

from kuma.base.values import addresses
from kuma.resources.models.dataplane import DataplaneSpec, listen_address
from kuma.resources.resource import Key, Resource
from kuma.resources.view import MeshView


class Administration(NamedTuple):
    """The port of an Envoy's administration, 0 if it is not said, and the address that its stream has come from."""

    port: int
    host: str


class Administrations:
    """Knows the last administration of every proxy; a proxy that has left comes back to it."""

    def __init__(self, view: Callable[[str], MeshView]) -> None:
        self._view = view
        """Of a mesh, with addresses in the place of host names."""
        self._known: dict[Key, Administration] = {}
        self._by_port: dict[int, set[Key]] = {}

    def get(self, key: Key) -> Administration | None:
        """Returns the administration of the proxy of a Dataplane, if it is known."""
        return self._known.get(key)

    def note(self, key: Key, found: Administration) -> bool:
        """Remembers an administration; returns whether that is anything new."""
        if self._known.get(key) == found:
            return False
        self.forget(key)
        self._known[key] = found
        self._by_port.setdefault(found.port, set()).add(key)
        return True

    def forget(self, key: Key) -> Administration | None:
        """Forgets the administration of a Dataplane that is gone; returns it if there was one."""
        old = self._known.pop(key, None)
        if old is not None:
            keys = self._by_port[old.port]
            keys.discard(key)
            if not keys:
                del self._by_port[old.port]
        return old

    def beside(self, dataplane: Resource[DataplaneSpec], ports: Iterable[int]) -> Set[int]:
        """Returns those of `ports` where an Envoy on the machine of a Dataplane has its administration.

        Two proxies are on one machine if their streams come from one address, or their Dataplanes have one in common:
        what a Dataplane says of itself may be wrong.
        """
        return {port for port in ports if any(self._is_beside(key, dataplane) for key in self._by_port.get(port, ()))}

    def _is_beside(self, key: Key, dataplane: Resource[DataplaneSpec]) -> bool:
        if key == dataplane.key:
            return True
        mine, its = self._known.get(dataplane.key), self._known[key]
        if mine is not None and mine.host and mine.host == its.host:
            return True
        other = self._view(key.mesh).dataplanes.get(key.name)
        common = _addresses(dataplane) & _addresses(other) if other is not None else set()
        return any(mine is None or not addresses.is_loopback(address) for address in common)


def _addresses(dataplane: Resource[DataplaneSpec]) -> set[str]:
    networking = dataplane.spec.net
    return {networking.address, *(listen_address(networking, inbound) for inbound in networking.inbound)}
