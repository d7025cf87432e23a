"""Two callers that keep connections of all six protocols, through their proxies and that of what they call."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from demo.mesh import DemoMesh
from demo.processes import Processes, free_ports, until
from kuma.base import aio
from soak import kept
from soak.bounds import Bound, cut
from soak.kept import Kept

STAYS, GUEST = "keeper", "guest"
"""Who is always admitted, and whose permission comes and goes."""
_PROTOCOLS = {"store": "tcp", "page": "http", "api": "grpc"}
_CARRIED_BY = {
    "tcp": "store", "http/1.1": "page", "http/2": "api", "grpc": "api", "websocket": "page", "chunked": "page",
}  # fmt: skip
_REQUESTS = ("http/1.1", "http/2")
"""Where the caller's proxy holds the connection to the other side, and may open another for the next request."""
_PERMISSION = """\
type: TrafficPermission
mesh: default
name: kept
sources: [{sources}]
destinations: [{{match: {{kuma.io/service: store}}}}, {{match: {{kuma.io/service: page}}}}, \
{{match: {{kuma.io/service: api}}}}]
"""


class Keepers:
    """Runs the workloads and the connections in a thread of their own."""

    def __init__(self, mesh: DemoMesh, processes: Processes) -> None:
        self.bounds: list[Bound] = []
        self.judged: Counter[str] = Counter()
        """How many bounds have been looked at when they were over, by why."""
        self._mesh, self._processes = mesh, processes
        self._ports = dict(zip(_PROTOCOLS, free_ports(len(_PROTOCOLS)), strict=True))
        self._kept: dict[str, list[Kept]] = {}
        self._loop, self._done = asyncio.new_event_loop(), asyncio.Event()
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._run()), daemon=True)

    def start(self) -> None:
        """Start the proxies, the workloads and the connections, until each has been used."""
        self.admit(STAYS, GUEST)
        inbounds = [_inbound(name, port, _PROTOCOLS[name]) for name, port in self._ports.items()]
        self._start_proxy("kept", inbounds, [])
        for caller in (STAYS, GUEST):
            outbounds = dict(zip(_PROTOCOLS, free_ports(len(_PROTOCOLS)), strict=True))
            called = [f"{{port: {port}, tags: {{kuma.io/service: {name}}}}}" for name, port in outbounds.items()]
            self._start_proxy(caller, [_inbound(caller, free_ports(1)[0], "tcp")], called)
            self._kept[caller] = [Kept(protocol, outbounds[name]) for protocol, name in _CARRIED_BY.items()]
        self._thread.start()
        for caller, connections in self._kept.items():
            self.wait_until_used(caller)
            for one in connections:
                one.failures.clear()  # of when the proxies were not there yet

    def stop(self) -> None:
        """End the workloads and the connections."""
        self._loop.call_soon_threadsafe(self._done.set)
        self._thread.join(timeout=20)

    def admit(self, *callers: str) -> None:
        """Let these callers, and nobody else, call what serves the connections."""
        sources = ", ".join(f"{{match: {{kuma.io/service: {caller}}}}}" for caller in callers)
        self._mesh.write("kept-permission.yaml", _PERMISSION.format(sources=sources))
        self._mesh.kumactl("apply", "-f", "kept-permission.yaml")

    def uses(self, caller: str) -> Mapping[str, int]:
        """Returns how often each connection of a caller has been used."""
        return {one.protocol: one.used for one in self._kept[caller]}

    def wait_until_used(self, caller: str) -> None:
        """Wait until each connection of a caller has been used once more.

        Raises:
            Failed: one is not, for two minutes.
        """
        before = self.uses(caller)

        def all_used() -> bool:
            return all(uses > before[protocol] for protocol, uses in self.uses(caller).items())

        until(f"{caller} uses all its connections", all_used, self._processes)

    def cut(self, begin: float, end: float) -> list[str]:
        """The protocols in which connections of the one that stays ended in a time."""
        return [one.protocol for one in self._kept[STAYS] if cut(one.spans, begin, end)]

    def overstaying(self) -> list[str]:
        """What was open for longer than a bound allows, each told once, when the bound is over."""
        now = time.monotonic()
        over = [bound for bound in self.bounds if bound.is_over(now)]
        self.bounds = [bound for bound in self.bounds if bound not in over]
        self.judged.update(bound.why for bound in over)
        return [
            f"{one.protocol} of {caller} outlived its bound: {bound.why}"
            for bound in over
            for caller, connections in self._kept.items()
            for one in connections
            if one.protocol not in _REQUESTS and any(bound.overstays(span, now) for span in one.spans)
        ]

    def failures(self) -> list[str]:
        """The requests that failed; and those of the one that stays that were refused."""
        refused = [f"{one.protocol} of {STAYS} was refused" for one in self._kept[STAYS] if one.refused]
        return refused + [
            f"{one.protocol} of {caller}: {failure}"
            for caller, connections in self._kept.items()
            for one in connections
            for failure in one.failures
        ]

    def __str__(self) -> str:
        return "\n".join(
            f"{caller}: {one.protocol}: {one.used} uses, {one.opened} opened, {one.ended} ended, "
            f"{one.refused} refused, {len(one.failures)} failures"
            for caller, connections in self._kept.items()
            for one in connections
        )

    def _start_proxy(self, name: str, inbounds: Sequence[str], outbounds: Sequence[str]) -> None:
        networking = f"address: 127.0.0.1, admin: {{port: {free_ports(1)[0]}}}, inbound: [{', '.join(inbounds)}]"
        if outbounds:
            networking += f", outbound: [{', '.join(outbounds)}]"
        text = f"{{type: Dataplane, mesh: default, name: {name}-01, networking: {{{networking}}}}}"
        self._mesh.write(f"{name}.yaml", text)
        self._mesh.token(name)
        self._mesh.start_proxy(name)

    async def _run(self) -> None:
        async with contextlib.AsyncExitStack() as stack:
            for name, serve in (("store", kept.serve_tcp), ("page", kept.serve_http)):
                server: Any = await asyncio.start_server(serve, "127.0.0.1", self._ports[name])
                stack.callback(server.close)
            stack.push_async_callback((await kept.serve_grpc(self._ports["api"])).stop, 0)
            connections = [one for of_caller in self._kept.values() for one in of_caller]
            tasks = [aio.spawn(one.run(), name=one.protocol) for one in connections]
            await self._done.wait()
            await aio.stop(tasks)


def _inbound(service: str, workload: int, protocol: str) -> str:
    tags = f"{{kuma.io/service: {service}, kuma.io/protocol: {protocol}}}"
    return f"{{port: {free_ports(1)[0]}, servicePort: {workload}, tags: {tags}}}"
