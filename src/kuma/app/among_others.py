"""What this control plane tells of itself among others over the same store, and whether it can serve as they do."""

from __future__ import annotations

import ipaddress
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import kuma
from kuma.app.configuration.settings import Settings
from kuma.app.serving.doors import Doors
from kuma.app.worker import any_sibling_can_use_store
from kuma.base.clock import Clock
from kuma.base.values import urls
from kuma.console.record import SharedRecord
from kuma.console.sealing import SharedKey
from kuma.coordination.coordination import Coordination, Instance
from kuma.coordination.isolation import Isolation
from kuma.coordination.peers import Peers
from kuma.resources.models.coordination import InstanceSpec
from kuma.store.protocol import Store
from kuma.xds.bootstrap.server_names import ServerNames
from kuma.xds.proxies.connected_proxies import Proxies
from kuma.xds.stream import questions, store_health


@dataclass(frozen=True, slots=True)
class Described:
    """Describes a control plane that began at `started`; see `InstanceSpec`.

    `port` tells where it serves discovery, once that is known.
    """

    settings: Settings
    started: datetime
    clock: Clock
    proxies: Proxies
    port: Callable[[], int]
    keys: Callable[[], Sequence[str]]

    def __call__(self) -> InstanceSpec:
        """Returns the description as of now."""
        host = self.settings.dp_server.interface
        reached = platform.node() if ipaddress.ip_address(host).is_unspecified else host
        return InstanceSpec(
            address=urls.host_port(reached, self.port()),
            version=kuma.__version__,
            started=self.started,
            written=self.clock.now(),
            proxies=len(self.proxies),
            keys=tuple(self.keys()),
        )


def instances(coordination: Coordination, name: str, describe: Described, leads: bool) -> Sequence[Instance]:
    """Returns all control planes that are there.

    One that has its store to itself, `name`, is the only one, and `leads`; on Kubernetes, as long as it has its Lease.
    """
    return coordination.instances() or (Instance(name, describe(), leads=leads, received=describe.clock.now()),)


def isolation(
    coordination: Coordination,
    clock: Clock,
    names: Callable[[], ServerNames],
    doors: Doors,
    siblings: Sequence[int],
) -> Isolation | None:
    """Returns what notices that we alone are cut off, and has our proxies go elsewhere; None if there is no elsewhere.

    `names` are those of our certificate, by which the others know themselves, too; `siblings` see `Worker`.
    """
    if not isinstance(coordination, Peers):
        return None

    async def ask(addresses: Sequence[str]) -> bool:
        sibling_can = await any_sibling_can_use_store(siblings)
        doors.sibling_can(sibling_can)
        return sibling_can or await store_health.any_can_use_it(addresses, names())

    return Isolation(clock, coordination, ask, doors.cut_off)


def record(path: Path, store: Store, clock: Clock, names: Callable[[], ServerNames]) -> SharedRecord:
    """Returns the audit record of all control planes; `path` is this one's, and by `names` it knows the others."""

    async def ask(address: str, question: bytes) -> bytes:
        return await questions.ask(address, names(), question)

    return SharedRecord(path, SharedKey(store), ask, clock)


def unhealthy(isolation: Isolation | None) -> str:
    """Returns why a load balancer is to send proxies and users elsewhere; nothing if it need not."""
    return "it alone is cut off from the store" if isolation is not None and isolation.is_cut_off else ""
