"""Tells of every listener of a mesh which of its calls are logged, and what is known of them beforehand."""

from __future__ import annotations

from kuma.base.values.urls import host_port
from kuma.policy.access_logs import AccessLogs, Sinks
from kuma.resources.models.dataplane import DataplaneSpec, Inbound, workload
from kuma.resources.resource import Resource
from kuma.resources.view import MeshView
from kuma.xds.envoy.listeners.access_log import NOTHING, UNKNOWN, Logged


class LoggedCalls:
    """The calls of one mesh view."""

    def __init__(self, view: MeshView, previous: LoggedCalls | None = None) -> None:
        """`previous` is that of an older view, of which is kept what has not changed."""
        logging = view.mesh.spec.logging if view.mesh else None
        self._mesh = view.name
        self._from = logging, view.traffic_logs, view.mesh_access_logs
        same = previous is not None and all(a is b for a, b in zip(previous._from, self._from, strict=True))
        self.logs: AccessLogs = previous.logs if previous is not None and same else AccessLogs(*self._from)

    def at_inbound(self, dataplane: Resource[DataplaneSpec], inbound: Inbound) -> Logged:
        """Returns what is logged of the calls to an inbound."""
        if self.logs.are_none:
            return NOTHING
        sinks = self.logs.of_inbound(dataplane, inbound)
        found = self._logged(sinks, dataplane, UNKNOWN, inbound.service, "INBOUND")
        return found._replace(workload=host_port(*workload(dataplane.spec.net, inbound))) if sinks else found

    def at_outbound(self, dataplane: Resource[DataplaneSpec], service: str) -> Logged:
        """Returns what is logged of the calls of a Dataplane to a service."""
        if self.logs.are_none:
            return NOTHING
        sinks = self.logs.of_outbound(dataplane, service)
        return self._logged(sinks, dataplane, dataplane.spec.services[0], service, "OUTBOUND")

    def _logged(
        self, sinks: Sinks, dataplane: Resource[DataplaneSpec], source: str, destination: str, direction: str
    ) -> Logged:
        if not sinks:
            return NOTHING
        return Logged(sinks, self._mesh, source, destination, dataplane.spec.net.address, direction)
