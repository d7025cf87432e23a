"""Metrics of the discovery server."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from kuma.resources.models.mesh_transition import BackendStatus


class Metrics:
    """Counters of one discovery server, in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.streams = Gauge("xds_streams_active", "Proxies connected to this control plane.", registry=registry)
        responses = Counter("xds_responses_sent", "Discovery responses sent, by type.", ["type_url"], registry=registry)
        self.responses: Callable[[str], Counter] = cache(responses.labels)
        """By type. Counted thousands of times while a mesh arrives: what is counted is looked up once."""
        confirmations = Counter(
            "xds_requests_received",
            "Discovery responses answered by proxies, by type: ACK, or NACK for a rejected one.",
            ["type_url", "confirmation"],
            registry=registry,
        )
        self.confirmations: Callable[[str, str], Counter] = cache(confirmations.labels)
        """By type, and ACK or NACK."""
        self.refused = Counter(
            "xds_streams_refused", "Streams refused: no valid token, or no valid Dataplane.", registry=registry
        )
        labels = ("mesh", "backend")
        self.issued = Counter("cert_generation", "Certificates issued to proxies.", labels, registry=registry)
        self.issue_failures = Counter(
            "cert_generation_failures", "Certificates that could not be issued.", labels, registry=registry
        )
        self.waiting = Gauge(
            "mesh_transition_waiting",
            "Proxies that have not acknowledged the present step of a mesh's mutual TLS.",
            ["mesh"],
            registry=registry,
        )
        self.withheld = Gauge(
            "inbounds_withheld",
            "Inbounds that are not served, because they lead to where they may not.",
            ["mesh"],
            registry=registry,
        )
        self.unresolved = Gauge(
            "host_names_unresolved", "Host names in Dataplanes that cannot be resolved now.", registry=registry
        )
        self.out_of_contact = Gauge(
            "mesh_proxies_out_of_contact",
            "Proxies of a mesh that are away and may go on with what they have acknowledged.",
            ["mesh"],
            registry=registry,
        )
        self.observed = Counter(
            "observed_connections",
            "Connections to inbounds that proxies report: by mesh TLS, other TLS or plaintext, and their outcome.",
            ["mesh", "how", "outcome"],
            registry=registry,
        )
        self.authority_ends = Gauge(
            "ca_expiration_timestamp_seconds",
            "When the certificate of an authority ends, in seconds since 1970.",
            ["mesh", "backend"],
            registry=registry,
        )
        self.overdue = Gauge(
            "ca_renewal_overdue",
            "1 if the root of a builtin authority should have been renewed by now and was not.",
            ["mesh", "backend"],
            registry=registry,
        )
        self.jumps = Counter(
            "clock_jumps", "Times that the clock was set, or the machine slept: two seconds or more.", registry=registry
        )

    def clock_jumped(self, _: timedelta) -> None:
        """Counts it."""
        self.jumps.inc()

    def authorities(self, mesh: str, backends: Iterable[BackendStatus]) -> None:
        """Show the authorities that a mesh has now, and no others."""
        known = {backend.name: backend for backend in backends if backend.not_after is not None}
        for gauge in (self.authority_ends, self.overdue):
            _remove(gauge, lambda labels: labels["mesh"] == mesh and labels["backend"] not in known)
        for name, backend in known.items():
            assert backend.not_after is not None
            self.authority_ends.labels(mesh, name).set(backend.not_after.timestamp())
            self.overdue.labels(mesh, name).set(backend.renewal_overdue)

    def forget(self, mesh: str) -> None:
        """Show nothing more of a mesh that is gone."""
        for metric in (
            self.waiting,
            self.out_of_contact,
            self.authority_ends,
            self.overdue,
            self.issued,
            self.issue_failures,
            self.observed,
        ):
            _remove(metric, lambda labels: labels["mesh"] == mesh)


class EarliestEnd(Collector):
    """Earliest end of what connected proxies have one of each, per mesh only because meshes have many proxies."""

    def __init__(self, name: str, text: str, ends: Callable[[], Iterable[tuple[str, datetime]]]) -> None:
        self._name = name
        self._text = text
        self._ends = ends

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """As it is at the moment of asking."""
        earliest: dict[str, float] = {}
        for mesh, end in self._ends():
            earliest[mesh] = min(end.timestamp(), earliest.get(mesh, math.inf))
        family = GaugeMetricFamily(self._name, self._text, labels=["mesh"])
        for mesh, first in sorted(earliest.items()):
            family.add_metric([mesh], first)
        yield family


def _remove(metric: Counter | Gauge, is_gone: Callable[[dict[str, str]], bool]) -> None:
    for labels in [sample.labels for family in metric.collect() for sample in family.samples]:
        if labels and is_gone(labels):
            with contextlib.suppress(KeyError):  # the total and the time of creation of the same counter
                metric.remove(*labels.values())
