"""An error that nobody has thought of holds up the object that it is about, and no other."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from kuma.base import aio
from kuma.kubernetes.api import credentials
from kuma.kubernetes.api.client import ApiClient
from kuma.kubernetes.api.informer import Informer
from kuma.kubernetes.controllers.meshes import MeshController
from kuma.kubernetes.controllers.pods import PodController
from kuma.kubernetes.metrics import Metrics
from kuma.kubernetes.store.store import KubernetesStore
from kuma.resources import kinds
from kuma.store.manager import Decision, ResourceManager
from kuma.store.protocol import AnyResource, Create, Store, find
from kuma.store.views import Views
from tests.conformance import test_store as suite
from tests.fakes.patience import PATIENCE
from tests.kubernetes.conftest import Place

pytestmark = pytest.mark.timeout(3600)  # the first test waits until the API server is built


class Broken:
    """Rules with an error in them, which comes up for one name until it is mended."""

    mended = False

    async def on_put(self, old: AnyResource | None, new: AnyResource, store: Store) -> Decision:
        if not self.mended and new.name.startswith("odd"):
            raise ZeroDivisionError("an error of ours")
        return Decision()

    async def on_delete(self, old: AnyResource, store: Store) -> Decision:
        return Decision()


async def until(what: str, holds: Callable[[], Any]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await holds():
            await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def running(place: Place, registry: CollectorRegistry, rules: Broken) -> AsyncIterator[KubernetesStore]:
    async with ApiClient(credentials.find(place.kubeconfig), Metrics(registry)) as client:
        store = KubernetesStore(client, place.forms)
        views = Views(store)
        manager = ResourceManager(store, {kinds.DATAPLANE.name: rules, kinds.MESH.name: rules})
        known = (client, place.forms, manager, views)
        pods = Informer(client, "/api/v1/pods")
        parts: list[tuple[str, aio.Component]] = [
            ("views", views),
            ("list of pods", pods),
            ("pods", PodController(*known, pods)),
            ("meshes", MeshController(*known)),
        ]
        task = aio.spawn(aio.supervise(parts), name="controllers")
        try:
            yield store
        finally:
            await aio.stop([task])
            await store.close()


def pod(name: str) -> dict[str, Any]:
    containers = [{"name": "app", "image": "app"}, {"name": "kuma-sidecar", "image": "kuma-dp"}]
    metadata = {"name": name, "namespace": "default", "annotations": {"kuma.io/sidecar-injected": "true"}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": containers}}


async def test_one_pod_and_one_mesh_hold_up_no_other(place: Place) -> None:
    registry, rules, cluster = CollectorRegistry(), Broken(), place.cluster
    status = {"status": {"phase": "Running", "podIP": "10.9.9.9", "podIPs": [{"ip": "10.9.9.9"}]}}
    async with running(place, CollectorRegistry(), rules) as store:
        await store.transact([Create(suite.mesh("odd"))])
        await store.transact([Create(suite.mesh("default"))])
    for name in ("odd", "plain"):
        cluster.kubectl("create", "--validate=false", "-f", "-", text=json.dumps(pod(name)))
        cluster.kubectl("patch", "pod", name, "--subresource=status", "--type=merge", "-p", json.dumps(status))
    async with running(place, registry, rules) as store:

        def failures(controller: str) -> float:
            return registry.get_sample_value("kubernetes_controller_failures_total", {"controller": controller}) or 0

        async def failed_and_went_on() -> bool:
            plain = await find(store, kinds.DATAPLANE.key("plain.default", "default"))
            return plain is not None and bool(failures("pods")) and bool(failures("meshes"))

        await until("the others are seen to", failed_and_went_on)

        async def told() -> bool:
            events = cluster.kubectl("get", "events", "--field-selector=involvedObject.name=odd").stdout
            return "an error of the control plane, ZeroDivisionError" in events

        await until("it is told by an event", told)
        rules.mended = True

        async def made() -> bool:
            return await find(store, kinds.DATAPLANE.key("odd.default", "default")) is not None

        await until("it is seen to, too", made)
    for name in ("odd", "plain"):
        cluster.kubectl("delete", "pod", name, "--force", "--grace-period=0")
