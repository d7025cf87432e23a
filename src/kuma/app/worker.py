"""What a process of a control plane is given by the one that started it; see `kuma.app.workers`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import httpx

from kuma.base.system import service_manager, sockets
from kuma.base.tls.trust import NOBODY

_ANSWER = 2.0
"""Seconds in which another worker is to answer."""


async def _at_once() -> None:
    """Begins without waiting for anybody."""


def _ready() -> None:
    service_manager.tell(service_manager.READY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """One of the processes of a control plane, or (number 0) the only one.

    `listen` makes sockets, or hands out those that all workers accept from. `siblings` are the ports of the loopback
    where the other workers serve diagnostics. `begin` returns when all of them can serve; `tell_ready` tells that this
    one does.
    """

    number: int = 0
    listen: sockets.Listen = sockets.listening
    siblings: Sequence[int] = ()
    begin: Callable[[], Awaitable[None]] = _at_once
    tell_ready: Callable[[], None] = _ready

    @property
    def is_one_of_several(self) -> bool:
        return self.number > 0

    @property
    def facts(self) -> Mapping[str, object]:
        """Returns what the log says of it when it is ready."""
        return {"worker": self.number} if self.is_one_of_several else {}


ALONE = Worker()


async def any_sibling_can_use_store(ports: Sequence[int]) -> bool:
    """Asks the other workers of this control plane whether they can use the store; who does not answer cannot."""
    async with httpx.AsyncClient(verify=NOBODY, timeout=_ANSWER, trust_env=False) as client:
        return any(await asyncio.gather(*(_can_use_store(client, port) for port in ports)))


async def _can_use_store(client: httpx.AsyncClient, port: int) -> bool:
    try:
        return (await client.get(f"http://127.0.0.1:{port}/store")).is_success
    except httpx.HTTPError:
        return False
