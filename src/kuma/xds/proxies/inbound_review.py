"""Judges stored Dataplanes again whenever what they were judged against changes.

A Dataplane is judged when it is stored, against what is known then. Later another proxy arrives on its machine, with
its administration where one of its inbounds leads to; or the control plane has other ports after a restart. An inbound
that is not allowed any more is withheld: it is not served, and its callers are not sent there. The others go on. Of
a Dataplane that may not be a member of its mesh any more everything is withheld, its identity too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

import structlog
from prometheus_client import Gauge

from kuma.base.values import addresses
from kuma.policy import membership, workloads
from kuma.policy.workloads import Destination, OwnPorts, Place, Surroundings
from kuma.resources import kinds
from kuma.resources.models.blocks.mesh_blocks import Membership
from kuma.resources.models.dataplane import DataplaneSpec, listen_address, workload
from kuma.resources.resource import Key, Resource
from kuma.resources.view import MeshView, changed_names
from kuma.store.protocol import Store
from kuma.xds.envoy.services.service_members import EVERYTHING, Withheld
from kuma.xds.proxies.administrations import Administration, Administrations
from kuma.xds.proxies.connected_proxies import Proxies
from kuma.xds.proxies.meshes import Meshes
from kuma.xds.proxies.proxy import Proxy

T = TypeVar("T")
log = structlog.get_logger(__name__)


class InboundReview:
    """Withholds inbounds of stored Dataplanes, and gives them back."""

    def __init__(
        self,
        meshes: Meshes,
        proxies: Proxies,
        own_ports: OwnPorts,
        allowed: tuple[Destination, ...],
        networks: tuple[Destination, ...],
        withheld: Gauge,
    ) -> None:
        self._meshes = meshes
        self._administrations = Administrations(self._view)
        self._own_ports = own_ports
        self._allowed = allowed
        self._networks = networks
        self._gauge = withheld
        self._seen: dict[str, Mapping[str, Resource[DataplaneSpec]]] = {}
        self._memberships: dict[str, Membership] = {}
        self._judged: dict[Key, Resource[DataplaneSpec]] = {}
        self._leading_to: dict[int, set[Key]] = {}
        self._led: dict[Place, set[Key]] = {}
        """The Dataplanes with inbounds that lead to a place."""
        self._proved: dict[Key, frozenset[Place]] = {}
        self._listening: dict[Place, set[Key]] = {}
        """The Dataplanes whose proxies are known to listen at a place."""
        self._withheld: dict[str, dict[str, Withheld]] = {}
        meshes.on_change(self._changed)
        proxies.on_progress(self._progressed)

    async def recall(self, store: Store) -> None:
        """Takes up where Envoys had their administration before a restart: they need not be back yet."""
        for insight in (await store.list(kinds.DATAPLANE_INSIGHT.name)).items:
            found = insight.spec.administration
            if found is not None:
                key = kinds.DATAPLANE.key(insight.name, insight.mesh)
                self._administrations.note(key, Administration(found.port, found.host))

    def surroundings_of(self, dataplane: Resource[DataplaneSpec]) -> Surroundings:
        """Returns what is known of the machine of a Dataplane now."""
        administrations = self._administrations.beside(dataplane, _ports(dataplane))
        beside = self._inbounds_beside(dataplane)
        return Surroundings(self._own_ports(), administrations, self._allowed, beside, self._networks)

    def _inbounds_beside(self, dataplane: Resource[DataplaneSpec]) -> frozenset[Place]:
        """Returns the places that inbounds lead to where another proxy listens: its stream has come from that address.

        What a Dataplane alone says may be wrong, and would keep others from being served.
        """

        def is_anothers(place: Place) -> bool:
            listening = self._listening.get(place, set())
            return len(listening) > (dataplane.key in listening)

        return frozenset(filter(is_anothers, _workloads(dataplane)))

    def _view(self, mesh: str) -> MeshView:
        """Returns a mesh with addresses in the place of host names: a name may lead anywhere."""
        return self._meshes.state(mesh).config.view

    def _changed(self, meshes: frozenset[str]) -> None:
        for mesh in meshes:
            again = self._of_other_members(mesh)
            before, stored = self._seen.get(mesh, {}), self._view(mesh).dataplanes
            if before is not stored:
                self._seen[mesh] = stored
                changed = changed_names(before, stored)
                for dataplane in (stored[name] for name in changed if name in stored):
                    judged = self._judged.get(dataplane.key)
                    if judged is not None and judged.spec == dataplane.spec:
                        continue  # it has got another label
                    self._note(dataplane.key, dataplane)
                    again |= {dataplane.key, *self._prove(dataplane.key)}
                for name in changed - stored.keys():
                    again |= self._forget(before[name].key)
            self._judge(again)

    def _of_other_members(self, mesh: str) -> set[Key]:
        """Returns the Dataplanes that other rules of membership let in, or keep out."""
        rules = self._membership(mesh)
        if rules == self._memberships.get(mesh, Membership()):
            return set()
        self._memberships[mesh] = rules
        known = self._withheld.get(mesh, {})
        stored = self._view(mesh).dataplanes.items()
        return {
            dataplane.key
            for name, dataplane in stored
            if bool(membership.exclusion(mesh, rules, dataplane.spec)) != (EVERYTHING in known.get(name, {}))
        }

    def _membership(self, mesh: str) -> Membership:
        found = self._view(mesh).mesh
        return found.spec.membership if found else Membership()

    def _forget(self, key: Key) -> set[Key]:
        """Forgets the administration of a Dataplane that is gone; returns whom to judge again, itself included."""
        old = self._administrations.forget(key)
        return {key, *(self._leading_to.get(old.port, ()) if old else ()), *self._prove(key)}

    def _prove(self, key: Key) -> set[Key]:
        """Notes where a proxy is known to listen; returns the Dataplanes that lead to where that is another now."""
        dataplane, known = self._judged.get(key), self._administrations.get(key)
        places = _places(dataplane) if dataplane is not None and known is not None else frozenset()
        host = addresses.reached(known.host) if known is not None else ""
        now = frozenset(place for place in places if place[0] == host)
        before = self._proved.pop(key, frozenset())
        _take_out(self._listening, before, key)
        _put_in(self._listening, now, key)
        if now:
            self._proved[key] = now
        return {leading for place in now ^ before for leading in self._led.get(place, ())}

    def _progressed(self, proxy: Proxy) -> None:
        """Takes in where a proxy that arrives has its administration."""
        found = Administration(proxy.admin_port, proxy.host)
        before = self._administrations.get(proxy.key)
        if before == found:
            return
        self._administrations.note(proxy.key, found)
        ports = {found.port, before.port} if before else {found.port}
        leading = (key for port in ports for key in self._leading_to.get(port, ()))
        self._judge({proxy.key, *leading, *self._prove(proxy.key)})

    def _judge(self, keys: Iterable[Key]) -> None:
        changed: dict[str, dict[str, Withheld]] = {}
        for key in keys:
            dataplane = self._view(key.mesh).dataplanes.get(key.name)
            self._note(key, dataplane)
            withheld = self._refused(dataplane) if dataplane else {}
            if withheld != self._withheld.get(key.mesh, {}).get(key.name, {}):
                changed.setdefault(key.mesh, {})[key.name] = withheld
                _tell(key, withheld)
        for mesh, names in changed.items():
            merged = {**self._withheld.get(mesh, {}), **names}
            self._withheld[mesh] = {name: withheld for name, withheld in merged.items() if withheld}
            inbounds = (index for withheld in self._withheld[mesh].values() for index in withheld)
            self._gauge.labels(mesh).set(sum(index != EVERYTHING for index in inbounds))
            self._meshes.withhold(mesh, self._withheld[mesh])

    def _refused(self, dataplane: Resource[DataplaneSpec]) -> Withheld:
        """Returns what is not to be served of a Dataplane, each with the reason."""
        excluded = membership.exclusion(dataplane.mesh, self._membership(dataplane.mesh), dataplane.spec)
        if excluded:
            return dict.fromkeys((EVERYTHING, *range(len(dataplane.spec.net.inbound))), excluded)
        found = workloads.refusals(dataplane.spec.net, self.surroundings_of(dataplane))
        return {index: str(violation) for index, violation in found}

    def _note(self, key: Key, dataplane: Resource[DataplaneSpec] | None) -> None:
        """Keeps the index of ports, for what is stored under `key` now."""
        old = self._judged.pop(key, None)
        if old is not None:
            _take_out(self._leading_to, _ports(old), key)
            _take_out(self._led, _workloads(old), key)
        if dataplane is not None:
            self._judged[key] = dataplane
            _put_in(self._leading_to, _ports(dataplane), key)
            _put_in(self._led, _workloads(dataplane), key)


def _take_out(index: dict[T, set[Key]], where: Iterable[T], key: Key) -> None:
    for each in where:
        index[each].discard(key)
        if not index[each]:
            del index[each]


def _put_in(index: dict[T, set[Key]], where: Iterable[T], key: Key) -> None:
    for each in where:
        index.setdefault(each, set()).add(key)


def _workloads(dataplane: Resource[DataplaneSpec]) -> frozenset[Place]:
    """Returns where the inbounds of a Dataplane lead to."""
    networking = dataplane.spec.net
    found = (workload(networking, inbound) for inbound in networking.inbound)
    return frozenset((addresses.reached(address), port) for address, port in found)


def _places(dataplane: Resource[DataplaneSpec]) -> frozenset[Place]:
    """Returns where the proxy of a Dataplane listens for callers."""
    networking = dataplane.spec.net
    found = ((listen_address(networking, inbound), inbound.port) for inbound in networking.inbound)
    return frozenset((addresses.reached(address), port) for address, port in found)


def _ports(dataplane: Resource[DataplaneSpec]) -> frozenset[int]:
    """Yields the ports that inbounds lead to, and those that callers are sent to."""
    networking = dataplane.spec.net

    def each() -> Iterator[int]:
        for inbound in networking.inbound:
            yield inbound.port
            yield workload(networking, inbound)[1]

    return frozenset(each())


def _tell(key: Key, withheld: Withheld) -> None:
    if withheld:
        log.warning("inbounds not served", mesh=key.mesh, dataplane=key.name, reasons=sorted({*withheld.values()}))
    else:
        log.info("all inbounds served again", mesh=key.mesh, dataplane=key.name)
