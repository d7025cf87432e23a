"""The largest resource of each kind that is taken, and for how long, or how many calls, the loop stands meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Mapping
from types import FrameType
from typing import Any

from kuma.base import aio
from kuma.resources import codec, limits
from kuma.resources.resource import Resource


class Turns:
    """The longest time between two turns of whoever wants one all the time, in seconds: of the clock, and of CPU."""

    longest = 0.0
    computed = 0.0

    async def watch(self) -> None:
        clock, cpu = time.perf_counter(), time.thread_time()
        while True:
            await asyncio.sleep(0)
            now, used = time.perf_counter(), time.thread_time()
            self.longest, self.computed = max(self.longest, now - clock), max(self.computed, used - cpu)
            clock, cpu = now, used


@contextlib.asynccontextmanager
async def watched() -> AsyncIterator[Turns]:
    """Watches the loop until the end of the block."""
    found = Turns()
    watching = aio.spawn(found.watch(), name="watching turns")
    await asyncio.sleep(0)
    try:
        yield found
    finally:
        await aio.stop([watching])


class Calls:
    """The most calls of functions, of Python and of C, between two turns of whoever wants one all the time."""

    most = 0
    _since = 0

    async def watch(self) -> None:
        while True:
            self._since = 0
            await asyncio.sleep(0)
            self.most = max(self.most, self._since)

    def count(self, _frame: FrameType, event: str, _argument: object) -> None:
        self._since += event in {"call", "c_call"}


@contextlib.asynccontextmanager
async def counted() -> AsyncIterator[Calls]:
    """Counts the calls of the loop's thread until the end of the block; others' threads are not looked at."""
    found = Calls()
    watching = aio.spawn(found.watch(), name="counting calls")
    sys.setprofile(found.count)
    try:
        yield found
    finally:
        sys.setprofile(None)
        await aio.stop([watching])


def _tags(service: str, count: int) -> dict[str, str]:
    return {"kuma.io/service": service, **{f"tag-{number}": f"{service}-{number}" for number in range(count - 1)}}


def _mesh() -> Mapping[str, Any]:
    most = limits.MOST["Mesh"]["mtls.backends"]
    backends = [{"name": f"ca-{number}", "type": "builtin"} for number in range(1, most + 1)]
    return {"type": "Mesh", "name": "default", "mtls": {"enabledBackend": "ca-1", "backends": backends}}


def _dataplane() -> Mapping[str, Any]:
    most = limits.MOST["Dataplane"]
    inbound = [
        {"port": 1000 + n, "servicePort": 8080, "tags": _tags(f"own-{n}", most["networking.inbound[].tags"])}
        for n in range(most["networking.inbound"])
    ]
    outbound = [
        {"port": 20_000 + n, "tags": {"kuma.io/service": f"s{n % 100}", **({"tag": f"{n}"} if n >= 100 else {})}}
        for n in range(most["networking.outbound"])
    ]
    networking = {"address": "10.0.0.1", "inbound": inbound, "outbound": outbound}
    return {"type": "Dataplane", "mesh": "default", "name": "largest", "networking": networking}


def _permission() -> Mapping[str, Any]:
    selectors = [{"match": _tags(f"s{number}", 3)} for number in range(limits.CALLERS - 1)]
    destinations = [*selectors, {"match": {"kuma.io/service": "*", "kuma.io/protocol": "http"}}]
    said = {"sources": [*selectors, {"match": _tags("s", limits.TAGS)}], "destinations": destinations}
    return {"type": "TrafficPermission", "mesh": "default", "name": "largest", **said}


def _mesh_permission() -> Mapping[str, Any]:
    items = [
        {"targetRef": {"kind": "MeshSubset", "tags": _tags(f"s{number}", 6)}, "default": {"action": "Allow"}}
        for number in range(limits.CALLERS)
    ]
    spec = {"targetRef": {"kind": "Mesh"}, "from": items}
    return {"type": "MeshTrafficPermission", "mesh": "default", "name": "largest", "spec": spec}


def _traffic_log() -> Mapping[str, Any]:
    selectors = [{"match": _tags(f"s{number}", limits.TAGS)} for number in range(limits.ENTRIES - 1)]
    anybody = {"match": {"kuma.io/service": "*"}}
    said = {"sources": [*selectors, anybody], "destinations": [*selectors, anybody]}
    return {"type": "TrafficLog", "mesh": "default", "name": "largest", **said}


def _access_log() -> Mapping[str, Any]:
    def to(number: int) -> Mapping[str, Any]:
        file = {"path": f"/var/log/{number}", "format": {"plain": "x" * limits.FORMAT}}
        return {"targetRef": {"kind": "MeshService", "name": f"s{number}"}, "default": {"backends": [{"file": file}]}}

    spec = {"targetRef": {"kind": "Mesh"}, "to": [to(number) for number in range(limits.ENTRIES)]}
    return {"type": "MeshAccessLog", "mesh": "default", "name": "largest", "spec": spec}


def _secret(kind: str) -> Mapping[str, Any]:
    mesh = {"mesh": "default"} if kind == "Secret" else {}
    data = "QUFB" * (limits.LARGEST_SECRET // 3)
    return {"type": kind, **mesh, "name": "largest", "data": data}


def documents() -> Mapping[str, Mapping[str, Any]]:
    """By kind."""
    found = (
        _mesh(), _dataplane(), _permission(), _mesh_permission(), _traffic_log(), _access_log(),
        _secret("Secret"), _secret("GlobalSecret"),
    )  # fmt: skip
    return {document["type"]: document for document in found}


def crowd(count: int) -> list[Resource[Any]]:
    """So many ordinary Dataplanes, of a hundred services."""
    return [
        codec.parse({
            "type": "Dataplane", "mesh": "default", "name": f"p{n}",
            "networking": {
                "address": f"10.{n >> 14}.{n >> 7 & 127}.{n & 127}",
                "inbound": [{
                    "port": 80, "servicePort": 8080,
                    "tags": {"kuma.io/service": f"s{n % 100}", "kuma.io/protocol": "http", "instance": f"i{n}"},
                }],
                "outbound": [{"port": 20_000, "tags": {"kuma.io/service": f"s{(n + 1) % 100}"}}],
            },
        })
        for n in range(count)
    ]  # fmt: skip
