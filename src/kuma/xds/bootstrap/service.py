"""Answers to bootstrap requests: what an Envoy needs to reach this control plane."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kuma.base.errors import AccessDenied, InvalidResource, NotFound
from kuma.resources import kinds
from kuma.resources.models import dataplane as dataplanes
from kuma.resources.models.dataplane import DataplaneSpec
from kuma.resources.resource import Resource
from kuma.store.manager import ResourceManager
from kuma.store.views import Views
from kuma.xds.bootstrap.server_names import ServerNames
from kuma.xds.envoy.node.bootstrap import Bootstrap
from kuma.xds.stream import proxy_authentication
from kuma.xds.stream.proxy_authentication import Authenticator


@dataclass(frozen=True, slots=True)
class AnsweredBootstrap:
    """A bootstrap in JSON, and the address of the Dataplane that it is for."""

    bootstrap: str = field(repr=False)
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AskingProxy:
    """A proxy that asks for its bootstrap, by what it says of itself. `host` is the name that it reached us by."""

    mesh: str
    name: str
    brought: Resource[DataplaneSpec] | None
    """The Dataplane that came along, if one did."""
    token: str = field(repr=False)
    host: str
    version: Mapping[str, Any]
    said: Mapping[str, Any]
    """What becomes part of Envoy's node unchanged."""
    ca_pem: str
    """The CA by which it verifies us; empty if it does not say."""


class BootstrapService:
    """Creates bootstraps only for callers who would be granted a stream, so that kuma-dp ends with the reason at once.

    A bootstrap holds nothing but what the caller sent; what is secret comes over the stream.
    """

    def __init__(
        self,
        manager: ResourceManager,
        views: Views,
        authenticator: Authenticator,
        ads_port: Callable[[], Awaitable[int]],
        names: Callable[[], ServerNames],
    ) -> None:
        self._manager = manager
        self._views = views
        self._authenticator = authenticator
        self._ads_port = ads_port
        self._names = names

    async def answer(self, proxy: AskingProxy) -> AnsweredBootstrap:
        """Makes the bootstrap of the proxy of a Dataplane, in JSON.

        Raises:
            Unverifiable: a proxy that calls us so and trusts that CA would not trust us.
            InvalidResource: the mesh does not exist.
            Unauthenticated: the token does not hold.
            Unavailable: that cannot be told now.
            AccessDenied: it is not for this Dataplane, or not for the one that is stored under its name.
            NotFound: there is no such Dataplane, and none came along.
        """
        ca = self._names().ca_for(proxy.host, proxy.ca_pem.encode())
        dataplane = await self._authorized(proxy.mesh, proxy.name, proxy.brought, proxy.token)
        networking = dataplane.spec.net
        bootstrap = Bootstrap(
            mesh=proxy.mesh,
            name=proxy.name,
            services=dataplane.spec.services,
            admin_port=dataplanes.admin_port(networking),
            host=proxy.host,
            port=await self._ads_port(),
            ca_pem=ca,
            token=proxy.token,
            version=proxy.version,
            brought=proxy.brought,
            said=proxy.said,
        )
        return AnsweredBootstrap(bootstrap.to_json(), networking.address)

    async def _authorized(
        self, mesh: str, name: str, brought: Resource[DataplaneSpec] | None, token: str
    ) -> Resource[DataplaneSpec]:
        """Returns the Dataplane that the token is for: the one that came along, or else the stored one."""
        await self._views.until(lambda: True)  # the mesh and the keys of its tokens are known by then
        if self._views.view(mesh).mesh is None:
            raise InvalidResource.of("mesh", f'mesh "{mesh}" does not exist')
        await self._authenticator.review(token)
        identity = self._authenticator.authenticate(mesh, token)
        self._authenticator.check_brought(identity, brought)
        key = kinds.DATAPLANE.key(name, mesh)
        stored = await self._manager.find(key)
        for known in (stored, brought):
            if known is not None:
                self._authenticator.authorize(identity, known)
                if reason := self._authenticator.exclusion(known):
                    raise AccessDenied(reason)
        dataplane = brought or stored
        if dataplane is None:
            raise NotFound(proxy_authentication.not_found(key))
        return dataplane
