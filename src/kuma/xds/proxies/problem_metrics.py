"""Metrics that are read off the state of meshes and proxies at the moment of asking."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from itertools import islice

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from kuma.base.clock import Clock
from kuma.pki.leaf_rotation import is_overdue
from kuma.store.views import Views
from kuma.xds.proxies.connected_proxies import Proxies
from kuma.xds.proxies.proxy import Proxy

_MOST = 100
"""Problems that are told by the Dataplane: a mesh of thousands would make thousands of series when its CA is gone."""


class MeshStates(Collector):
    """How far the mutual TLS of each mesh is, and since when a change of it is under way."""

    def __init__(self, views: Views) -> None:
        self._views = views

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yields both, for every mesh that proxies can be in."""
        level = GaugeMetricFamily(
            "mesh_level", "0 plaintext, 1 inbounds accept mutual TLS, 2 callers encrypt, 3 strict.", labels=["mesh"]
        )
        started = GaugeMetricFamily(
            "mesh_transition_started_timestamp_seconds",
            "When the present step of a mesh's mutual TLS began, in seconds since 1970; none when all is done.",
            labels=["mesh"],
        )
        for name in sorted(self._views.meshes):
            view = self._views.view(name)
            if view.mesh is None:
                continue
            level.add_metric([name], view.position.level)
            spec = view.transition.spec if view.transition else None
            if spec is not None and not spec.complete and spec.since is not None:
                started.add_metric([name], spec.since.timestamp())
        yield from (level, started)


class ProxyProblems(Collector):
    """Connected proxies that something is wrong with, by name: 1 for each problem, nothing for who has none."""

    def __init__(self, proxies: Proxies, clock: Clock) -> None:
        self._proxies = proxies
        self._clock = clock

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yields at most a hundred."""
        family = GaugeMetricFamily(
            "dataplane_problem",
            f"1 for each problem of a connected proxy, {_MOST} of them at most.",
            labels=["mesh", "dataplane", "problem"],
        )
        now = self._clock.now()
        found = ((proxy, problem) for proxy in self._proxies for problem in _problems(proxy, now))
        for proxy, problem in islice(found, _MOST):
            family.add_metric([proxy.key.mesh, proxy.key.name, problem], 1)
        yield family


def _problems(proxy: Proxy, now: datetime) -> Iterator[str]:
    identity = proxy.keeper.identity
    if proxy.keeper.last_error:
        yield "certificate_not_issued"
    if identity is not None and is_overdue(identity.issued, identity.not_after, now):
        yield "certificate_not_rotated"
    if any(counters.rejection for counters in proxy.record.counters.values()):
        yield "configuration_rejected"
    if proxy.token.warned <= now:
        yield "token_near_its_end"
