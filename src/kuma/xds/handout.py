"""Answers to bootstrap requests: what an Envoy needs to reach this control plane."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from kuma.base.errors import InvalidResource, NotFound
from kuma.resources import dataplane as dataplanes
from kuma.resources import kinds
from kuma.resources.dataplane import DataplaneSpec
from kuma.resources.resource import Resource
from kuma.store.manager import ResourceManager
from kuma.store.views import Views
from kuma.xds.bootstrap import Bootstrap


class Handout:
    """Hands out bootstraps. A bootstrap holds nothing but what the caller sent, so it needs no permission by itself."""

    def __init__(
        self, manager: ResourceManager, views: Views, ads_port: Callable[[], Awaitable[int]], ca_pem: bytes
    ) -> None:
        self._manager = manager
        self._views = views
        self._ads_port = ads_port
        self._ca_pem = ca_pem

    async def answer(
        self,
        *,
        mesh: str,
        name: str,
        brought: Resource[DataplaneSpec] | None,
        token: str,
        host: str,
        version: Mapping[str, Any],
        ca_pem: str,
    ) -> str:
        """The bootstrap of the proxy of a Dataplane, in JSON. `host` is the name that it reached us by.

        Raises:
            InvalidResource: the mesh does not exist.
            NotFound: there is no such Dataplane, and none came along.
        """
        if self._views.view(mesh).mesh is None:
            raise InvalidResource.of("mesh", f'mesh "{mesh}" does not exist')
        dataplane = brought or await self._stored(mesh, name)
        networking = dataplane.spec.net
        return Bootstrap(
            mesh=mesh,
            name=name,
            services=dataplane.spec.services,
            admin_port=dataplanes.admin_port(networking),
            host=host,
            port=await self._ads_port(),
            ca_pem=ca_pem.encode() or self._ca_pem,
            token=token,
            version=version,
            brought=brought,
        ).to_json()

    async def _stored(self, mesh: str, name: str) -> Resource[DataplaneSpec]:
        found = await self._manager.find(kinds.DATAPLANE.key(name, mesh))
        if found is None:
            raise NotFound(
                f'resource "{mesh}.{name}" not found; create a Dataplane in Kuma CP first or pass it to kuma-dp'
            )
        return found
