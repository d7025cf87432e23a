"""A whole control plane in the test's own process, on free ports, with the test's clock."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc.aio

from kuma.app import assembly, stores
from kuma.app.assembly import ControlPlane
from kuma.app.configuration.settings import Settings
from kuma.app.serving.servers import HTTP
from kuma.authorities.registry import STANDARD, Drivers
from kuma.base import aio
from kuma.base.audit import AuditFile
from kuma.base.clock import Clock, SystemClock
from kuma.resources import codec, kinds
from kuma.resources.models.dataplane import admin_port
from kuma.resources.models.mesh_transition import Level
from kuma.resources.resource import Resource
from kuma.resources.view import MeshView
from kuma.tokens import dataplane_tokens
from kuma.xds.envoy.node.workers import APPLIED_WITHIN
from kuma.xds.envoy.resource import TypeUrl
from tests.fakes.clock import ManualClock
from tests.fakes.patience import PATIENCE
from tests.fakes.proxy import FakeProxy, channel

MTLS = "{type: Mesh, name: default, mtls: {enabledBackend: ca-1, backends: [{name: ca-1, type: builtin}]}}"
OTHER_CA = (
    "{type: Mesh, name: default, mtls: {enabledBackend: ca-2, "
    "backends: [{name: ca-1, type: builtin}, {name: ca-2, type: builtin}]}}"
)
"""`MTLS` after a change to another authority, with the one before it kept."""
ALLOW_ALL = (
    "{type: TrafficPermission, mesh: default, name: allow-all, "
    "sources: [{match: {kuma.io/service: '*'}}], destinations: [{match: {kuma.io/service: '*'}}]}"
)


def resource(text: str) -> Resource[Any]:
    """The resource in a piece of YAML."""
    return codec.parse(next(codec.documents(text)))


def dataplane(name: str, service: str, port: int = 80, calls: tuple[str, ...] = (), tags: str = "") -> Resource[Any]:
    """A Dataplane with one HTTP inbound."""
    outbound = ", ".join(f"{{port: {20000 + i}, tags: {{kuma.io/service: {s}}}}}" for i, s in enumerate(calls))
    return resource(
        f"{{type: Dataplane, mesh: default, name: {name}, networking: {{address: 10.0.0.1, "
        f"inbound: [{{port: {port}, servicePort: {port + 900}, "
        f"tags: {{kuma.io/service: {service}, kuma.io/protocol: http{tags}}}}}], outbound: [{outbound}]}}}}"
    )


class Running:
    """A control plane that runs, and ways to use it as its clients do."""

    def __init__(self, parts: ControlPlane, clock: Clock, directory: Path, task: asyncio.Task[None]) -> None:
        self.parts = parts
        self._task = task
        self.directory = directory
        self.clock = clock
        self.ca_pem = (directory / "ca.crt").read_bytes()
        self._stack = contextlib.AsyncExitStack()
        self._markers = itertools.count()

    async def apply(self, *texts: str) -> None:
        """Apply resources and return once they are in the mesh view."""
        for text in texts:
            await self.apply_resource(resource(text))

    async def apply_resource(self, found: Resource[Any]) -> None:
        """Apply one resource and return once it is in the mesh view."""
        stored = (await self.parts.manager.put(found)).resource
        await self.parts.views.until(lambda: self.parts.views.holds(stored))

    async def looked_around(self) -> None:
        """Return once a mesh made now has turned mutual TLS on and off again, and its authority has been removed.

        This goes through all that follows meshes, so that what was due there before has been looked at by then: a test
        that shows that something does not happen waits for this, and not for some time.
        """
        name = f"marker-{next(self._markers)}"
        plain = f"{{type: Mesh, name: {name}}}"

        def view() -> MeshView:
            return self.parts.views.view(name)

        await self.apply(plain, MTLS.replace("name: default", f"name: {name}"))
        await self.parts.views.until(lambda: view().position.level is Level.STRICT)
        await self.apply(plain)
        await self.parts.views.until(lambda: not any(".ca-builtin-" in secret for secret in view().secrets))
        await self.delete(plain)

    def workers_apply(self) -> None:
        """Let a moment pass by the test's clock if that is waited for, as after an acknowledgement."""
        if isinstance(self.clock, ManualClock):
            self.clock.advance_to_next(APPLIED_WITHIN.total_seconds())

    async def until(self, holds: Callable[[], Any]) -> None:
        """Return once something holds, while Envoys have the time to apply what they acknowledge."""
        async with asyncio.timeout(PATIENCE):
            while not holds():
                self.workers_apply()
                await asyncio.sleep(0.01)

    async def disconnected(self, described: Resource[Any]) -> None:
        """Return once no proxy is connected for a Dataplane, and what is to follow that waits for the clock."""
        async with asyncio.timeout(PATIENCE):
            while described.key in self.parts.proxies:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0)  # its tasks have been made, and begin before this goes on

    async def settled(self, count: int) -> None:
        """Return once `count` proxies are connected and run what they should."""
        async with asyncio.timeout(PATIENCE):
            while len(self.parts.proxies) < count or not all(proxy.converged for proxy in self.parts.proxies):
                await asyncio.sleep(0.01)

    async def insight(self, described: Resource[Any], holds: Callable[[Any], Any]) -> Any:
        """The insight of a Dataplane, once it is as expected."""
        key = kinds.DATAPLANE_INSIGHT.key(described.name, described.mesh)
        async with asyncio.timeout(PATIENCE):
            while True:
                found = await self.parts.manager.find(key)
                if found is not None and holds(found.spec):
                    return found.spec
                await asyncio.sleep(0.02)

    async def delete(self, text: str) -> None:
        await self.parts.manager.delete(resource(text).key)

    def token(
        self, name: str = "", mesh: str = "default", service: str = "", valid_for: timedelta = timedelta(days=3650)
    ) -> str:
        """A dataplane token, restricted to a name or a service if they are given."""
        return dataplane_tokens.issue_token(
            mesh,
            self.parts.views.view(mesh).secrets,
            name=name,
            tags={"kuma.io/service": [service]} if service else {},
            valid_for=valid_for,
            now=self.clock.now(),
        )

    def check(self) -> None:
        """Raise what the control plane has ended by, if it has: a part of it has failed."""
        if self._task.done():
            self._task.result()

    async def api_port(self) -> int:
        """Where the API is served over HTTP."""
        return await self.parts.api[HTTP].port()

    async def channel(self) -> grpc.aio.Channel:
        """A connection to the discovery server."""
        return await self._stack.enter_async_context(channel(await self.parts.xds.port(), self.ca_pem))

    async def proxy(self, described: Resource[Any], token: str | None = None, *, bring: bool = True) -> FakeProxy:
        """A connected proxy for a Dataplane."""
        node = f"{described.mesh}.{described.name}"
        found = FakeProxy(node, self.token() if token is None else token, described if bring else None)
        found.node.metadata.update({"dataplane.admin.port": str(admin_port(described.spec.net))})
        found.connect(await self.channel())
        self._stack.push_async_callback(found.disconnect)
        return found

    async def come_and_gone(self, described: Resource[Any], *, bring: bool = True) -> None:
        """Return once a proxy has been there for a Dataplane, with listeners, and has left."""
        found = await self.proxy(described, bring=bring)
        await found.until(lambda: found.names(TypeUrl.LISTENER))
        await found.disconnect()
        await self.disconnected(described)

    async def close(self) -> None:
        await self._stack.aclose()


@contextlib.asynccontextmanager
async def running(
    directory: Path, clock: Clock | None = None, without: str = "", drivers: Drivers = STANDARD, **sections: Any
) -> AsyncIterator[Running]:
    """A control plane over the store in `directory`, until the end of the block; `without` one of its parts."""
    ports: dict[str, Any] = {
        "general": {"work_dir": directory},
        "api_server": {"http": {"port": 0}, "https": {"port": 0}},
        "dp_server": {"port": 0},
        "xds_server": {"port": 0},
        "diagnostics": {"server_port": 0},
    }
    settings = Settings.model_validate({**ports, **sections}, by_name=True)
    chosen = clock or SystemClock()
    store = await stores.open_store(settings, chosen)
    audit = AuditFile(settings.audit_file, chosen)
    parts = assembly.build(settings, store, chosen, audit, drivers)
    parts = replace(parts, components=tuple(part for part in parts.components if part[0] != without))
    await assembly.prepare(settings, parts)
    task = aio.spawn(parts.run(), name="control plane")
    found = Running(parts, chosen, directory, task)
    try:
        await parts.views.until(lambda: True)
        yield found
    finally:
        await found.close()
        await aio.stop([task])
        await store.close()
        audit.close()
