"""What the discovery server counts."""

from __future__ import annotations

import contextlib

from prometheus_client import CollectorRegistry, Counter, Gauge


class Metrics:
    """Counters of one discovery server, in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.streams = Gauge("xds_streams_active", "Proxies connected to this control plane.", registry=registry)
        self.responses = Counter(
            "xds_responses_sent", "Discovery responses sent, by type.", ["type_url"], registry=registry
        )
        self.verdicts = Counter(
            "xds_requests_received",
            "Discovery responses answered by proxies, by type: ACK, or NACK for a rejected one.",
            ["type_url", "confirmation"],
            registry=registry,
        )
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
        self.authority_ends = Gauge(
            "ca_expiration_timestamp_seconds",
            "When the certificate of an authority ends, in seconds since 1970.",
            ["mesh", "backend"],
            registry=registry,
        )

    def forget(self, mesh: str) -> None:
        """Show nothing more of a mesh that is gone."""
        for metric in (self.waiting, self.authority_ends, self.issued, self.issue_failures):
            for values in [sample.labels for family in metric.collect() for sample in family.samples]:
                if values.get("mesh") == mesh:
                    with contextlib.suppress(KeyError):
                        metric.remove(*(values[name] for name in values if name in ("mesh", "backend")))
