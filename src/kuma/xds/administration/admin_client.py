"""Asks proxies what they run and count, over their Envoys' administration (see `administration`)."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Mapping

import httpx
import structlog

from kuma.base.errors import NotFound, Unavailable
from kuma.base.system import sockets
from kuma.base.tls.trust import NOBODY
from kuma.base.values import addresses, urls
from kuma.pki.ssl_context import show
from kuma.policy.workloads import OwnPorts
from kuma.resources import kinds
from kuma.resources.models.dataplane_insight import AdministrationInsight
from kuma.resources.resource import Key
from kuma.xds.administration.ca import Credential
from kuma.xds.envoy import config_dump
from kuma.xds.envoy.listeners import admin_listener
from kuma.xds.proxies.connected_proxies import Proxies
from kuma.xds.proxies.elsewhere.proxies_elsewhere import ProxiesElsewhere
from kuma.xds.proxies.meshes import Meshes

log = structlog.get_logger(__name__)

_SILENT = "the Envoy of {mesh}.{name} does not answer"
_TIMEOUT = 10.0
_LARGEST = 64 << 20
"""Bytes of an answer that are read; an Envoy of a large mesh has some millions."""


class AdminClient:
    """Reads from the Envoys that are connected to this control plane or another over its store, and may end them."""

    def __init__(
        self,
        meshes: Meshes,
        proxies: Proxies,
        credential: Callable[[], Credential],
        own_ports: OwnPorts,
        elsewhere: ProxiesElsewhere,
    ) -> None:
        self._elsewhere = elsewhere
        self._own_ports = own_ports
        self._meshes = meshes
        self._proxies = proxies
        self._credential = credential

    async def config_dump(self, mesh: str, name: str, query: Mapping[str, str]) -> bytes:
        """Fetches a proxy's configuration in JSON, without keys and tokens; see `read`."""
        answered = await self.read(mesh, name, "/config_dump", query)
        try:
            return json.dumps(config_dump.redacted(json.loads(answered)), indent=1).encode()
        except (ValueError, RecursionError):  # it is no Envoy
            raise Unavailable(_SILENT.format(mesh=mesh, name=name)) from None

    async def read(self, mesh: str, name: str, path: str, query: Mapping[str, str]) -> bytes:
        """Fetches Envoy's answer at one of the paths of `admin_listener.READABLE`; see `_asked`.

        Raises:
            NotFound: no proxy is connected for that Dataplane.
            Unavailable: it does not answer.
        """
        return await self._asked(mesh, name, "GET", path, query)

    async def end(self, mesh: str, name: str) -> None:
        """Has an Envoy end, and with it its kuma-dp; see `_asked`.

        Raises:
            NotFound: no proxy is connected for that Dataplane.
            Unavailable: it does not answer.
        """
        await self._asked(mesh, name, "POST", admin_listener.QUIT, {})

    async def _asked(self, mesh: str, name: str, method: str, path: str, query: Mapping[str, str]) -> bytes:
        """Returns Envoy's answer.

        It is asked at the port that it was started with, as its proxy has said when it connected: users may change
        the Dataplane, and must not have us call ports of their choice. Nor may proxies of other machines have us call
        ports of this one. How it fails is for the log only.

        Raises:
            NotFound: no proxy is connected for that Dataplane.
            Unavailable: it does not answer.
        """
        dataplane = self._meshes.state(mesh).config.view.dataplanes.get(name)
        envoy = await self._administration(kinds.DATAPLANE.key(name, mesh))
        if dataplane is None or envoy is None:
            raise NotFound(f"no proxy is connected for {mesh}.{name}")
        networking = dataplane.spec.net
        if addresses.parse(networking.address) is None:
            raise Unavailable(f"{mesh}.{name} cannot be asked: its host name {networking.address} has no address now")
        remote = admin_listener.is_remote(networking)
        here = sockets.is_own(networking.address)
        if not envoy.port or (here and not self._may_be_here(envoy)):
            raise Unavailable(_SILENT.format(mesh=mesh, name=name))
        where = urls.host_port(networking.address if remote else admin_listener.ADDRESS, envoy.port)
        verify = _verification(self._credential()) if remote else NOBODY
        async with httpx.AsyncClient(verify=verify, timeout=_TIMEOUT, trust_env=False) as client:
            try:
                return await _read(client, method, f"http{'s' if remote else ''}://{where}{path}", query)
            except (httpx.HTTPError, ssl.SSLError) as error:
                log.warning("Envoy does not answer", mesh=mesh, dataplane=name, where=where, error=repr(error))
                raise Unavailable(_SILENT.format(mesh=mesh, name=name)) from None

    async def _administration(self, dataplane: Key) -> AdministrationInsight | None:
        proxy = self._proxies.get(dataplane)
        if proxy is not None:
            return AdministrationInsight(port=proxy.admin_port, host=proxy.host)
        return await self._elsewhere.find(dataplane)

    def _may_be_here(self, envoy: AdministrationInsight) -> bool:
        """Tells whether the Envoy that claims this address can be on this machine."""
        return sockets.is_own(envoy.host) and envoy.port not in self._own_ports()


async def _read(client: httpx.AsyncClient, method: str, url: str, query: Mapping[str, str]) -> bytes:
    found = bytearray()
    async with client.stream(method, url, params=dict(query)) as answer:
        answer.raise_for_status()
        async for part in answer.aiter_bytes():
            found += part
            if len(found) > _LARGEST:
                raise httpx.ReadError(f"the answer is longer than {_LARGEST} bytes")
    return bytes(found)


def _verification(credential: Credential) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=credential.ca.decode())
    show(context, credential.certificate + credential.key)
    return context
