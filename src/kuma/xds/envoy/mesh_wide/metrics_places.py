"""Finds where proxies serve their metrics, and which cannot: two at one address and port would reject each other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from kuma.base.values import addresses
from kuma.resources.models.blocks import metrics
from kuma.resources.models.blocks.metrics import MeshMetrics, Scraping
from kuma.resources.models.dataplane import DataplaneSpec, Networking, listen_address
from kuma.resources.resource import Resource

Place = tuple[str, int]


@dataclass(frozen=True, slots=True)
class MetricsPlaces:
    """The places that the Dataplanes of a mesh would serve metrics at. Immutable: a change makes another one."""

    declared: MeshMetrics | None = None
    standard: Scraping | None = None
    """How a Dataplane serves them that says nothing of its own."""
    holders: Mapping[Place, tuple[str, ...]] = field(default_factory=dict)
    """Dataplanes by place, sorted: the first one serves."""

    def following(
        self,
        declared: MeshMetrics | None,
        old: Mapping[str, Resource[DataplaneSpec]],
        new: Mapping[str, Resource[DataplaneSpec]],
        edited: Iterable[str],
    ) -> MetricsPlaces:
        """Returns what comes after this, when `edited` Dataplanes are others in `new` than in `old`."""
        if declared is not self.declared:
            fresh = MetricsPlaces(declared, metrics.scraping(declared, None))
            return fresh if fresh.standard is None else fresh._moved({}, new, new)
        return self if self.standard is None else self._moved(old, new, edited)

    def _moved(
        self,
        old: Mapping[str, Resource[DataplaneSpec]],
        new: Mapping[str, Resource[DataplaneSpec]],
        edited: Iterable[str],
    ) -> MetricsPlaces:
        holders = dict(self.holders)
        for name in edited:
            before, after = self.place(old.get(name)), self.place(new.get(name))
            if before == after:
                continue
            if before is not None:
                holders[before] = tuple(other for other in holders.get(before, ()) if other != name)
                if not holders[before]:
                    del holders[before]
            if after is not None:
                holders[after] = tuple(sorted({*holders.get(after, ()), name}))
        return MetricsPlaces(self.declared, self.standard, holders)

    def scraping(self, spec: DataplaneSpec) -> Scraping | None:
        """Tells how a Dataplane serves its metrics, if it could."""
        if self.standard is None or spec.metrics is None:
            return self.standard
        return metrics.scraping(self.declared, spec.metrics)

    def place(self, dataplane: Resource[DataplaneSpec] | None) -> Place | None:
        """Returns where a Dataplane would serve its metrics."""
        found = self.scraping(dataplane.spec) if dataplane else None
        return (dataplane.spec.net.address, found.port) if dataplane and found else None

    def hindrance(self, name: str, dataplane: Resource[DataplaneSpec], admin_port: int) -> str:
        """Says why a proxy serves no metrics although it should; empty if it does, or should not."""
        place = self.place(dataplane)
        if place is None:
            return ""
        where = f"metrics: nothing is served at {place[0]}:{place[1]}"
        if addresses.parse(place[0]) is None:
            return f"{where}: the host name has no address now"
        if not admin_port:
            return f"{where}: the proxy does not say where Envoy's administration is"
        if place[1] == admin_port or place in _listeners(dataplane.spec.net):
            return f"{where}: the port has another use there; set metrics.conf.port of the Dataplane"
        first = self.holders[place][0]
        if first != name:
            return f'{where}: Dataplane "{first}" has that address and port; set metrics.conf.port of the Dataplane'
        return ""

    def changed_hands(self, before: MetricsPlaces) -> frozenset[str]:
        """Returns the Dataplanes at places that another one serves at than `before`."""
        if before.holders is self.holders:
            return frozenset()
        return frozenset(
            name
            for place in before.holders.keys() | self.holders.keys()
            if before.holders.get(place, ("",))[:1] != self.holders.get(place, ("",))[:1]
            for name in self.holders.get(place, ())[:1]
        )


def _listeners(networking: Networking) -> frozenset[Place]:
    return frozenset(
        {(listen_address(networking, inbound), inbound.port) for inbound in networking.inbound}
        | {(outbound.address, outbound.port) for outbound in networking.outbound}
    )
