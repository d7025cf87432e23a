"""Rules for changes of Dataplanes: no inbound may lead to a port that trusts callers because they are on its machine.

Whoever connects to an inbound arrives at the workload from the loopback. If that workload were the control plane's own
API, the caller would be its administrator; if it were an Envoy's administration, the caller would command that proxy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Set
from typing import Protocol

from kuma.base.errors import InvalidResource, Violation
from kuma.base.values import addresses
from kuma.resources.dataplane import DataplaneSpec, Inbound, Networking, listen_address, workload
from kuma.resources.resource import Key, Resource
from kuma.store.manager import Decision
from kuma.store.protocol import Store
from kuma.store.views import Views

OwnPorts = Callable[[], Mapping[int, str]]
"""The ports that this control plane listens on, with what they are."""


class Administrations(Protocol):
    """The administrations of the Envoys that are connected."""

    def administered_at(self, port: int) -> Set[Key]:
        """The Dataplanes whose Envoys have their administration at this port."""
        ...


class DataplaneRules:
    """Refuses inbounds that lead to administrative ports. Which ports these are is known only while proxies run."""

    def __init__(self, views: Views, proxies: Administrations, own_ports: OwnPorts) -> None:
        self._views = views
        self._proxies = proxies
        self._own_ports = own_ports

    async def on_put(self, old: Resource[DataplaneSpec] | None, new: Resource[DataplaneSpec], store: Store) -> Decision:
        violations = tuple(self._violations(new))
        if violations:
            raise InvalidResource(violations)
        return Decision()

    async def on_delete(self, old: Resource[DataplaneSpec], store: Store) -> Decision:
        return Decision()

    def _violations(self, dataplane: Resource[DataplaneSpec]) -> Iterator[Violation]:
        networking, own = dataplane.spec.net, self._own_ports()
        for index, inbound in enumerate(networking.inbound):
            for field, address, port in _places(networking, inbound):
                path = f"networking.inbound[{index}].{field}"
                if port in own and addresses.leads_here(address):
                    yield Violation(path, f"{address}:{port} may be this control plane's own {own[port]}")
                elif self._is_administration(dataplane, address, port):
                    yield Violation(path, f"{address}:{port} is the administration of an Envoy")

    def _is_administration(self, dataplane: Resource[DataplaneSpec], address: str, port: int) -> bool:
        """Tells whether an Envoy that is known to run on the machine of `dataplane` has its administration there.

        What the Dataplane says of its own is checked by itself; but it may say something else than what runs.
        """
        own = dataplane.spec.net.address
        if not (addresses.leads_here(address) or address == own):
            return False
        for key in self._proxies.administered_at(port):
            other = self._views.view(key.mesh).dataplanes.get(key.name)
            if key == dataplane.key or (other is not None and other.spec.net.address == own):
                return True
        return False


def _places(networking: Networking, inbound: Inbound) -> Iterator[tuple[str, str, int]]:
    """Returns the addresses that an inbound leads to, and those to which clients are sent to reach it."""
    yield ("servicePort", *workload(networking, inbound))
    yield ("port", networking.advertised_address or listen_address(networking, inbound), inbound.port)
