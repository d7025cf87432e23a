"""Builds the parts and values that nearly every other part uses."""

from __future__ import annotations

import platform
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from prometheus_client import CollectorRegistry

from kuma.app.configuration.settings import Settings
from kuma.app.serving import servers
from kuma.app.serving.certificate_watch import CertificateWatch
from kuma.app.serving.servers import OwnPorts
from kuma.app.worker import Worker
from kuma.authorities.registry import Drivers
from kuma.base.audit import Audit
from kuma.base.clock import Clock, ClockWatch
from kuma.base.turns import Turns
from kuma.coordination.coordination import Alone, Coordination
from kuma.coordination.peers import EXPIRY, Peers
from kuma.kubernetes.pod_tokens import PodTokens
from kuma.kubernetes.store.store import KubernetesStore
from kuma.store.sql.store import SqlStore

AnyStore = SqlStore | KubernetesStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Foundation:
    """Parts and values that nearly every other part uses."""

    settings: Settings
    store: AnyStore
    clock: Clock
    audit: Audit
    drivers: Drivers
    watch: ClockWatch
    turns: Turns
    instance: str
    started: datetime
    coordination: Coordination
    certificate: CertificateWatch
    collectors: CollectorRegistry
    own_ports: OwnPorts
    worker: Worker
    pod_tokens: PodTokens | None
    """By which proxies are authenticated on Kubernetes."""
    has_lease: Callable[[], bool]
    """Whether this control plane leads by the Lease on Kubernetes; elsewhere there is none to lose."""

    def can_use_store(self) -> bool:
        """Tells whether what is stored can be used now, and it is seen that it can."""
        return not self.store.problem and self.coordination.silent_for() <= EXPIRY


def build_foundation(
    settings: Settings,
    store: AnyStore,
    clock: Clock,
    audit: Audit,
    drivers: Drivers,
    collectors: CollectorRegistry,
    pod_tokens: PodTokens | None,
    has_lease: Callable[[], bool],
    worker: Worker,
) -> Foundation:
    """Builds what does not depend on other parts."""
    which = f"w{worker.number}-" if worker.is_one_of_several else ""
    instance = f"{platform.node()}-{which}{secrets.token_hex(2)}"
    shared = settings.store.type == "postgres"
    return Foundation(
        settings=settings,
        store=store,
        clock=clock,
        audit=audit,
        drivers=drivers,
        watch=ClockWatch(clock),
        turns=Turns(),
        instance=instance,
        started=clock.now(),
        coordination=Peers(store, clock, instance) if shared else Alone(),
        certificate=servers.certificate(settings, clock, makes=not worker.is_one_of_several),
        collectors=collectors,
        own_ports=OwnPorts(worker.siblings),
        worker=worker,
        pod_tokens=pod_tokens,
        has_lease=has_lease,
    )
