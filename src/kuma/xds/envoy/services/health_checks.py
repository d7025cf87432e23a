"""Health discovery (HDS): what an Envoy is to ask of its workloads, and what it says of them.

Envoy asks from its own machine, reports at an interval, and says of a workload that it has not asked yet UNKNOWN or
UNHEALTHY, as of one that does not answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta

from envoy.config.core.v3 import health_check_pb2
from envoy.service.health.v3 import hds_pb2

from kuma.resources.models.blocks import service_probe
from kuma.resources.models.blocks.service_probe import ServiceProbe
from kuma.resources.models.dataplane import Networking, workload
from kuma.resources.workload_health import Place, place
from kuma.xds.envoy import resource_names
from kuma.xds.envoy.services import clusters
from kuma.xds.envoy.services.service_members import Withheld


@dataclass(frozen=True, slots=True)
class ProbeDefaults:
    """The interval at which Envoy reports, and what holds for a probe that does not say it."""

    report: timedelta = timedelta(seconds=1)
    interval: timedelta = timedelta(seconds=1)
    timeout: timedelta = timedelta(seconds=2)
    unhealthy_threshold: int = 1
    healthy_threshold: int = 1


def probed(networking: Networking, withheld: Withheld) -> Iterator[tuple[Place, tuple[str, int], ServiceProbe]]:
    """Yields the inbounds that are served and probed: their places, their workloads, and the probes."""
    for index, inbound in enumerate(networking.inbound):
        if inbound.service_probe is not None and index not in withheld:
            yield place(networking, inbound), workload(networking, inbound), inbound.service_probe


def specifier(networking: Networking, withheld: Withheld, defaults: ProbeDefaults) -> hds_pb2.HealthCheckSpecifier:
    """Returns what an Envoy is to ask; nothing if no inbound has a probe."""
    found = hds_pb2.HealthCheckSpecifier()
    found.interval.FromTimedelta(defaults.report)
    for where, target, probe in probed(networking, withheld):
        check = found.cluster_health_checks.add(cluster_name=resource_names.inbound_listener(*where))
        check.health_checks.append(_check(probe, defaults))
        check.locality_endpoints.add().endpoints.add().address.CopyFrom(clusters.socket(*target))
    return found


def _check(probe: ServiceProbe, defaults: ProbeDefaults) -> health_check_pb2.HealthCheck:
    check = health_check_pb2.HealthCheck()
    interval = service_probe.time(probe.interval, defaults.interval)
    check.interval.FromTimedelta(interval)
    check.no_traffic_interval.FromTimedelta(interval)  # nobody calls this cluster
    check.timeout.FromTimedelta(service_probe.time(probe.timeout, defaults.timeout))
    check.unhealthy_threshold.value = probe.unhealthy_threshold or defaults.unhealthy_threshold
    check.healthy_threshold.value = probe.healthy_threshold or defaults.healthy_threshold
    check.tcp_health_check.SetInParent()
    return check


def answers(networking: Networking, report: hds_pb2.EndpointHealthResponse) -> Mapping[Place, bool]:
    """Tells of the probed inbounds that a report names whether their workloads answer."""
    said = {
        cluster.cluster_name: endpoint.health_status == health_check_pb2.HEALTHY
        for cluster in report.cluster_endpoints_health
        for locality in cluster.locality_endpoints_health
        for endpoint in locality.endpoints_health
    }
    named = {resource_names.inbound_listener(*where): where for where, _, _ in probed(networking, {})}
    return {named[name]: is_answering for name, is_answering in said.items() if name in named}
