"""Names of metrics as they are served: with the prefix of all of ours, and for one release without it, too."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

PREFIX = "kuma_"
OF_THE_PROCESS = "process_"
"""What every program tells of itself has the same names everywhere."""
ALIASES = frozenset(
    {
        "ca_expiration_timestamp_seconds",
        "ca_renewal_overdue",
        "cert_expiration_timestamp_seconds",
        "cert_generation",
        "cert_generation_failures",
        "clock_jumps",
        "dataplane_token_expiration_timestamp_seconds",
        "host_names_unresolved",
        "inbounds_withheld",
        "mesh_proxies_out_of_contact",
        "mesh_transition_waiting",
        "xds_requests_received",
        "xds_responses_sent",
        "xds_streams_active",
        "xds_streams_refused",
    }
)
"""Names that were served without a prefix. They go with the release after the next."""


class Prefixed(Collector):
    """Shows the metrics of another collector under their full names."""

    def __init__(self, metrics: Collector) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        """Yields each as it is now."""
        for metric in self._metrics.collect():
            if metric.name.startswith(OF_THE_PROCESS):
                yield metric
                continue
            yield _prefixed(metric)
            if metric.name in ALIASES:
                metric.documentation = f"Deprecated name of {PREFIX}{metric.name}."
                yield metric


def _prefixed(metric: Metric) -> Metric:
    named = Metric(PREFIX + metric.name, metric.documentation, metric.type, metric.unit)
    named.samples = [Sample(PREFIX + sample.name, *sample[1:]) for sample in metric.samples]
    return named
