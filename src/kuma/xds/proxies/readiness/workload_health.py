"""Takes callers away from inbounds whose workloads do not answer, as their proxies say, and sends them there again."""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from kuma.base.clock import Clock
from kuma.resources import workload_health
from kuma.resources.models.dataplane import DataplaneSpec
from kuma.resources.resource import Key, Resource
from kuma.resources.workload_health import Place
from kuma.store.protocol import Store
from kuma.store.views import Views
from kuma.xds.proxies.connected_proxies import Proxies
from kuma.xds.proxies.meshes import Meshes
from kuma.xds.proxies.proxy import Proxy
from kuma.xds.proxies.readiness.dataplane_writes import DataplaneWrites

log = structlog.get_logger(__name__)


class WorkloadHealth:
    """Writes `state` and `health` of probed inbounds. What was said last stands until something else is said."""

    def __init__(self, store: Store, views: Views, meshes: Meshes, proxies: Proxies, clock: Clock) -> None:
        self._views = views
        self._meshes = meshes
        self._answers: dict[Key, Mapping[Place, bool]] = {}
        self._writes = DataplaneWrites(store, views, clock, "health of workloads not written", self._changed)
        proxies.on_progress(self._progressed)

    async def run(self) -> None:
        """Write until cancelled."""
        await self._writes.run()

    def said(self, key: Key, answers: Mapping[Place, bool]) -> None:
        """Takes in what a proxy says: which of its workloads answer."""
        if answers != self._answers.get(key):
            log.info("workloads asked", mesh=key.mesh, dataplane=key.name, answering=_shown(answers))
        self._answers[key] = answers
        self._writes.look(key)

    def silent(self, key: Key) -> None:
        """Notes that a proxy says nothing any more."""
        self._answers.pop(key, None)

    def _progressed(self, proxy: Proxy) -> None:
        if proxy.key in self._answers:  # its Dataplane may have been written by somebody else
            self._writes.look(proxy.key)

    def _changed(self, key: Key) -> Resource[DataplaneSpec] | None:
        """Returns the Dataplane as it should be, if it is not."""
        dataplane = self._views.view(key.mesh).dataplanes.get(key.name)
        if dataplane is None or key not in self._answers:
            return None
        served = self._meshes.state(key.mesh).config.view.dataplanes.get(key.name)
        if served is None or served.version != dataplane.version:
            return None  # what is asked follows what is stored
        spec = workload_health.reported(dataplane.spec, self._answers[key], served.spec)
        return None if spec is dataplane.spec else dataplane.with_spec(spec)


def _shown(answers: Mapping[Place, bool]) -> Mapping[str, bool]:
    return {f"{address}:{port}": is_answering for (address, port), is_answering in answers.items()}
