"""Keeps the Dataplane of every Pod that has a sidecar as the Pod and its Services say, whoever changes any of them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import structlog

from kuma.base import aio
from kuma.base.errors import InvalidResource, KumaError
from kuma.kubernetes.api import events
from kuma.kubernetes.api.client import ApiClient, ApiError, Object
from kuma.kubernetes.api.informer import Informer, Place
from kuma.kubernetes.controllers.due import Due
from kuma.kubernetes.objects import content
from kuma.kubernetes.objects.forms import Forms
from kuma.kubernetes.workloads import dataplanes, metadata
from kuma.resources import kinds, parsing
from kuma.resources.resource import Key, Resource
from kuma.resources.view import changed_names
from kuma.store.manager import ResourceManager
from kuma.store.views import Views

log = structlog.get_logger(__name__)

SOURCE = "k8s.kuma.io/dataplane-generator"
_ZONE = "default"
_AT_ONCE = 10
_RETRY = aio.Backoff(first=0.5, last=60.0)
_WORKLOADS = {"ReplicaSet": "/apis/apps/v1", "Job": "/apis/batch/v1"}
_SERVICE_OF_SLICE = "kubernetes.io/service-name"


class PodController:
    """Looks at a Pod when it, a Service of its namespace or its Dataplane changes; writes only what differs."""

    def __init__(self, client: ApiClient, forms: Forms, manager: ResourceManager, views: Views, pods: Informer) -> None:
        """`pods` is run by somebody else, who looks at them, too."""
        self._client = client
        self._form = forms.of(kinds.DATAPLANE.name)
        self._manager = manager
        self._views = views
        self._pods = pods
        self._services = Informer(client, "/api/v1/services")
        self._slices = Informer(client, "/apis/discovery.k8s.io/v1/endpointslices")
        self._known: dict[str, Mapping[str, object]] = {}
        """The Dataplanes of each mesh as they were looked at last."""
        self._owners: dict[str, Object] = {}
        """ReplicaSets and Jobs, by their identity: an owner stays who it is."""
        self._due = Due[Place](_RETRY)
        self._pods.on_change(self._look_at)
        self._services.on_change(self._service_changed)
        self._slices.on_change(self._slice_changed)
        views.on_change(self._meshes_changed)

    async def run(self) -> None:
        """Work until cancelled."""
        following = [("services", self._services), ("endpoint slices", self._slices)]
        await aio.supervise([*following, ("dataplanes of pods", aio.Running(self._follow))])

    async def _follow(self) -> None:
        for informer in (self._pods, self._services, self._slices):
            await informer.listed.wait()
        await self._views.until(lambda: True)
        self._due.add(self._pods.objects)
        turn = asyncio.Semaphore(_AT_ONCE)
        while True:
            await asyncio.gather(*(self._see_to(place, turn) for place in await self._due.taken()))

    def _look_at(self, place: Place) -> None:
        self._due.add([place])

    def _service_changed(self, place: Place) -> None:
        for pod, found in self._pods.objects.items():
            if pod[0] == place[0] and metadata.is_injected(found):
                self._look_at(pod)

    def _slice_changed(self, place: Place) -> None:
        """Endpoints matter where a Service has no selector; where it has one, they follow from the Pods."""
        found = self._slices.objects.get(place)
        name = metadata.labels(found).get(_SERVICE_OF_SLICE, "") if found else ""
        service = self._services.objects.get((place[0], name))
        if service is None or not (service.get("spec") or {}).get("selector"):
            self._service_changed(place)

    def _meshes_changed(self, meshes: frozenset[str]) -> None:
        """A Dataplane that somebody else has written or deleted is put right."""
        for mesh in meshes:
            after = self._views.view(mesh).dataplanes
            before, self._known[mesh] = self._known.get(mesh, {}), after
            for name in changed_names(before, after):
                pod, _, namespace = name.rpartition(".")
                if (namespace, pod) in self._pods.objects:
                    self._look_at((namespace, pod))
            if not after and self._views.view(mesh).mesh is None:
                del self._known[mesh]

    async def _see_to(self, place: Place, turn: asyncio.Semaphore) -> None:
        pod = self._pods.objects.get(place)
        if pod is None or not metadata.is_injected(pod):
            self._due.settled(place)
            return  # what it had goes with it
        async with turn:
            try:
                await self._put_right(pod)
                self._due.settled(place)
            except (KumaError, ApiError) as error:
                log.warning("no Dataplane for a Pod", pod=".".join(reversed(place)), reason=str(error))
                await self._failed(place, pod, str(error))
            except Exception as error:  # whatever it is, it is this Pod's: the others go on
                log.exception("no Dataplane for a Pod", pod=".".join(reversed(place)))
                await self._failed(place, pod, f"an error of the control plane, {type(error).__name__}")

    async def _failed(self, place: Place, pod: Object, reason: str) -> None:
        failures = self._due.failed(place)
        self._client.metrics.controller_failures.labels("pods").inc()
        if failures == 1:
            text = f"Failed to generate Kuma Dataplane: {reason}"
            await events.tell(self._client, pod, SOURCE, "Warning", "FailedToGenerateKumaDataplane", text)

    async def _put_right(self, pod: Object) -> None:
        named = pod["metadata"]
        key = kinds.DATAPLANE.key(f"{named['name']}.{named['namespace']}", metadata.mesh_of(pod))
        if not dataplanes.is_wanted(pod):
            if self._views.view(key.mesh).dataplanes.get(key.name) is not None:
                await self._delete(key)
            return
        wanted = await self._wanted(key, pod)
        stored = self._views.view(key.mesh).dataplanes.get(key.name)
        if stored is not None and stored.spec == wanted.spec and not _precedes(stored, pod):
            return
        await self._write(pod, key, wanted)

    async def _wanted(self, key: Key, pod: Object) -> Resource[Any]:
        namespace = key.name.rpartition(".")[2]
        services = [found for place, found in self._services.objects.items() if place[0] == namespace]
        slices = [found for place, found in self._slices.objects.items() if place[0] == namespace]
        owner = dataplanes.owner_name(pod, await self._controllers(pod))
        spec = dataplanes.spec(pod, services, slices, owner, _ZONE)
        return Resource(key, parsing.parse_spec(kinds.DATAPLANE, spec, key.mesh))

    async def _controllers(self, pod: Object) -> Mapping[tuple[str, str], Object]:
        """Returns the ReplicaSet or Job that a Pod belongs to."""
        namespace = pod["metadata"]["namespace"]
        found: dict[tuple[str, str], Object] = {}
        for owner in pod["metadata"].get("ownerReferences") or ():
            group = _WORKLOADS.get(owner["kind"])
            if group is None or not owner.get("controller"):
                continue
            if owner["uid"] not in self._owners:
                path = f"{group}/namespaces/{namespace}/{owner['kind'].lower()}s/{owner['name']}"
                owning = await self._client.find(path)
                if owning is None:
                    continue
                self._owners[owner["uid"]] = owning
            found[owner["kind"], owner["name"]] = self._owners[owner["uid"]]
        return found

    async def _write(self, pod: Object, key: Key, wanted: Resource[Any]) -> None:
        if self._views.view(key.mesh).mesh is None:
            raise InvalidResource.of("mesh", f'meshes.kuma.io "{key.mesh}" not found')
        path = self._form.path(key)
        stored = await self._client.find(path)
        if stored is not None and (self._form.key(stored) != key or not _is_owned(stored, pod)):
            await self._client.delete(path)  # it was in another mesh, or another Pod's, or made by hand
            stored = None
        old = content.decode(self._form, stored) if stored is not None else None
        judged = await self._manager.judge(old, wanted, allow_weakening=True)
        labels, version = (old.labels, old.version) if old else ({}, 0)
        resource = Resource(key, judged.resource.spec, labels=labels, version=version)
        body = content.encode(self._form, resource, stored)
        body["metadata"]["ownerReferences"] = [_owner(pod)]
        if stored is None:
            await self._client.create(self._form.place(key), body)
        else:
            await self._client.replace(path, body)
        what = "Created" if stored is None else "Updated"
        text = f"{what} Kuma Dataplane: {pod['metadata']['name']}"
        await events.tell(self._client, pod, SOURCE, "Normal", f"{what}KumaDataplane", text)

    async def _delete(self, key: Key) -> None:
        try:
            await self._client.delete(self._form.path(key))
        except ApiError as error:
            if error.code != 404:
                raise


def _precedes(dataplane: Resource[Any], pod: Object) -> bool:
    """Tells whether a Dataplane was there before the Pod of its name, and so is not the Pod's."""
    created = datetime.fromisoformat(pod["metadata"]["creationTimestamp"])
    return dataplane.creation_time is not None and dataplane.creation_time < created


def _is_owned(dataplane: Object, pod: Object) -> bool:
    owners = dataplane["metadata"].get("ownerReferences") or ()
    return any(owner["uid"] == pod["metadata"]["uid"] for owner in owners)


def _owner(pod: Object) -> Object:
    found = pod["metadata"]
    named = {"apiVersion": "v1", "kind": "Pod", "name": found["name"], "uid": found["uid"]}
    return {**named, "controller": True, "blockOwnerDeletion": True}
