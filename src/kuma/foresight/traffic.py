"""Says who has called whom in a mesh, with names for what is known, from what its proxies have reported. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from kuma.pki import spiffe
from kuma.resources import tags as tag_rules
from kuma.resources.models.observed_traffic import Edge, How, ObservedTrafficSpec, Outcome
from kuma.resources.resource import Model
from kuma.resources.view import MeshView

Observed = Mapping[str, ObservedTrafficSpec]
"""What was reported, by the names of Dataplanes."""
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
UNSEEN = timedelta(hours=2)
"""How long a caller in plaintext over HTTP may call, now and then, before it is heard of, for the first time or again.

Its connection is ended when it asks after ten minutes, and when nothing has been asked for an hour. So it is heard of
at every other request at least, if these are less than an hour apart.
"""
_NAMED = 5


class SeenCaller(Model):
    """A caller of one inbound of one Dataplane.

    `caller` is its service, if its certificate says so, else the address that it came from; `known_as` are the
    Dataplanes at that address. `last_hour` and `last_day` count connections by the hour: of the first, a part is older.
    """

    mesh: str
    dataplane: str
    service: str
    port: int
    caller: str
    how: How
    outcome: Outcome
    first: datetime
    last: datetime
    connections: int = 0
    last_hour: int = 0
    last_day: int = 0
    uris: tuple[str, ...] = ()
    """Of the caller's certificate: its SPIFFE IDs, and the tags that permissions looked at."""
    address: str = ""
    known_as: tuple[str, ...] = ()
    reason: str = ""


class PlaintextSummary(Model):
    """Callers in plaintext that proxies have let in: how many lately, and since when there was none."""

    callers_last_hour: int = 0
    last: datetime | None = None


class ClockOff(Model):
    """A proxy whose clock is not the control plane's: ahead, or behind if that is negative."""

    dataplane: str
    ahead_seconds: int


class TrafficSummary(Model):
    """Summary of the traffic of a mesh. `since` is when the last of its proxies that report has begun to."""

    mesh: str
    since: datetime | None = None
    observed: int = 0
    unobserved: tuple[str, ...] = ()
    """Dataplanes with inbounds that have never reported: some of them, `unobserved_total` says how many there are."""
    unobserved_total: int = 0
    plaintext: PlaintextSummary = PlaintextSummary()
    refused_last_hour: int = 0
    """Callers that were refused lately, in plaintext or not: each once for a service."""
    clocks_off: tuple[ClockOff, ...] = ()
    """Some of the proxies whose clocks are wrong, by what their last reports say."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """The Dataplanes of a mesh by their addresses."""

    names: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, view: MeshView) -> Addresses:
        """Reads them from a view."""
        found: dict[str, list[str]] = {}
        for name, dataplane in view.dataplanes.items():
            networking = dataplane.spec.net
            for address in {networking.address, networking.advertised_address} - {""}:
                found.setdefault(address, []).append(name)
        return cls({address: tuple(sorted(names)) for address, names in found.items()})

    def at(self, address: str) -> tuple[str, ...]:
        """Returns some of the Dataplanes at an address."""
        return self.names.get(address, ())[:_NAMED]


def callers(view: MeshView, observed: Observed, now: datetime) -> tuple[SeenCaller, ...]:
    """Returns all callers that were seen, in the order of those whom they call."""
    known = Addresses.of(view)
    found = (
        _seen(view.name, name, edge, known, now)
        for name, spec in observed.items()
        if name in view.dataplanes
        for edge in spec.edges
    )
    return tuple(sorted(found, key=lambda c: (c.service, c.dataplane, c.port, c.how, c.caller, c.outcome, c.reason)))


def summary(view: MeshView, observed: Observed, now: datetime) -> TrafficSummary:
    """Summarises what is known of a mesh."""
    served = sorted(name for name, dataplane in view.dataplanes.items() if dataplane.spec.net.inbound)
    unobserved = [name for name in served if name not in observed]
    plaintext = [edge for _, edge in let_in_unknown(view, observed) if edge.how == "plaintext"]
    clocks = ((name, observed[name].clock_ahead_seconds) for name in served if name in observed)
    off = [ClockOff(dataplane=name, ahead_seconds=ahead) for name, ahead in clocks if ahead]
    recent = {(edge.service, edge.address) for edge in plaintext if edge.last > now - HOUR}
    refused = {
        (edge.service, edge.uris or edge.address)
        for name in served
        for edge in (observed[name].edges if name in observed else ())
        if edge.outcome == "refused" and edge.last > now - HOUR
    }
    return TrafficSummary(
        mesh=view.name,
        refused_last_hour=len(refused),
        since=max((observed[name].since for name in served if name in observed), default=None),
        observed=len(served) - len(unobserved),
        unobserved=tuple(unobserved[:_NAMED]),
        unobserved_total=len(unobserved),
        clocks_off=tuple(off[:_NAMED]),
        plaintext=PlaintextSummary(
            callers_last_hour=len(recent), last=max((edge.last for edge in plaintext), default=None)
        ),
    )


def let_in_unknown(view: MeshView, observed: Observed) -> Iterator[tuple[str, Edge]]:
    """Yields the callers without an identity of the mesh that a Dataplane's inbound has let in."""
    for name, spec in observed.items():
        if name in view.dataplanes:
            yield from ((name, edge) for edge in spec.edges if edge.how != "meshTls" and edge.outcome == "allowed")


def named(mesh: str, edge: Edge) -> str:
    """Returns what people call a caller: its services, or where it came from."""
    shown = spiffe.tags(mesh, edge.uris)
    return ",".join(sorted(value for name, value in shown if name == tag_rules.SERVICE)) or edge.address or "unknown"


def _seen(mesh: str, dataplane: str, edge: Edge, known: Addresses, now: datetime) -> SeenCaller:
    return SeenCaller(
        mesh=mesh,
        dataplane=dataplane,
        service=edge.service,
        port=edge.port,
        caller=named(mesh, edge),
        how=edge.how,
        outcome=edge.outcome,
        first=edge.first,
        last=edge.last,
        connections=edge.connections,
        last_hour=edge.since(now - HOUR),
        last_day=edge.since(now - DAY),
        uris=edge.uris,
        address=edge.address,
        known_as=known.at(edge.address) if edge.address else (),
        reason=edge.reason,
    )
