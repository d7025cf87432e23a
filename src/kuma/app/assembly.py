"""The composition root: the list of all parts of the control plane, which nothing else builds.

`kuma.app.parts` builds them; `kuma.app.serving.servers` makes servers of some, as the settings say.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass
from typing import Any

import structlog
from prometheus_client import CollectorRegistry

from kuma.api.http.server import HttpServer
from kuma.api.ready_log import ReadyLog
from kuma.app import cluster, stores, token_keys
from kuma.app.configuration.settings import Settings
from kuma.app.parts import contexts
from kuma.app.parts.foundation import AnyStore, Foundation, build_foundation
from kuma.app.parts.listening import build_listening
from kuma.app.parts.rollouts import Rollouts, build_rollouts
from kuma.app.parts.state import State, build_state
from kuma.app.parts.streams import Streams, build_streams
from kuma.app.serving.certificate_watch import CertificateWatch
from kuma.app.serving.servers import HTTP, HTTPS, Servers
from kuma.app.worker import ALONE, Worker
from kuma.authorities import registry
from kuma.authorities.clean_up import CleanUp
from kuma.authorities.registry import Drivers
from kuma.authorities.root_renewal import RootRenewal
from kuma.base import aio, files
from kuma.base.audit import Audit, AuditFile
from kuma.base.clock import Clock
from kuma.coordination.coordination import Coordination
from kuma.coordination.heartbeat import Heartbeat
from kuma.coordination.peers import Peers
from kuma.kubernetes.pod_tokens import PodTokens
from kuma.resources import kinds
from kuma.resources.models.config import ConfigSpec
from kuma.resources.models.mesh import MeshSpec
from kuma.resources.resource import Resource
from kuma.store import audited
from kuma.store.manager import ResourceManager
from kuma.store.views import Views
from kuma.tokens.user_tokens import UserTokens
from kuma.xds.administration.admin_client import AdminClient
from kuma.xds.administration.ca import EnvoyAdminCa
from kuma.xds.proxies.connected_proxies import Proxies
from kuma.xds.proxies.elsewhere.noted_permissions import FormerPermissions
from kuma.xds.proxies.elsewhere.stored_leaves import StoredLeaves
from kuma.xds.proxies.inbound_review import InboundReview
from kuma.xds.proxies.meshes import Meshes
from kuma.xds.stream.grpc_server import DiscoveryServer

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """A control plane that is built and not started: its parts in the order in which they stand on each other."""

    components: tuple[tuple[str, aio.Component], ...]
    manager: ResourceManager
    views: Views
    proxies: Proxies
    meshes: Meshes
    users: UserTokens
    envoy_admin_ca: EnvoyAdminCa
    administration: AdminClient
    inbound_review: InboundReview
    leaves: StoredLeaves
    former: FormerPermissions
    coordination: Coordination
    certificate: CertificateWatch
    api: Mapping[str, HttpServer]
    dp: HttpServer
    diagnostics: HttpServer
    xds: DiscoveryServer

    async def run(self) -> None:
        """Run until cancelled."""
        await aio.supervise(self.components)


async def run(settings: Settings, clock: Clock, worker: Worker = ALONE) -> None:
    """Open the store, build the control plane and run it until cancelled.

    One of several workers of a control plane begins to serve when all of them can.
    """
    files.tighten(settings.work_dir)
    if settings.store.type == "kubernetes":
        with closing(AuditFile(settings.audit_file, clock)) as audit:
            async with cluster.opened(settings, clock) as found:
                await _run_in(found, clock, audit)
        return
    async with AsyncExitStack() as last, AsyncExitStack() as stack:
        store = await stores.open_store(settings, clock)
        stack.push_async_callback(store.close)
        audit = AuditFile(settings.audit_file, clock)
        last.callback(audit.close)  # after the store, which finishes what is being written
        control_plane = build(settings, store, clock, audit, worker=worker)
        await prepare(settings, control_plane)
        await worker.begin()
        await control_plane.run()


async def _run_in(found: cluster.Cluster, clock: Clock, audit: AuditFile) -> None:
    """Build the control plane over the cluster's API and run it until cancelled."""
    built = build(
        found.settings,
        found.store,
        clock,
        audit,
        collectors=found.collectors,
        pod_tokens=found.tokens,
        has_lease=lambda: found.lease.leads,
    )
    await cluster.run(
        found,
        built.components,
        built.manager,
        built.views,
        built.certificate,
        lambda: prepare(found.settings, built),
        built.administration.end,
        audit,
    )


def build(
    settings: Settings,
    store: AnyStore,
    clock: Clock,
    audit: Audit,
    drivers: Drivers = registry.STANDARD,
    collectors: CollectorRegistry | None = None,
    pod_tokens: PodTokens | None = None,
    has_lease: Callable[[], bool] = lambda: True,
    worker: Worker = ALONE,
) -> ControlPlane:
    """Builds all parts of a control plane over an open store, and lists them in the order in which they run.

    `collectors` has the metrics that there are already; `pod_tokens` authenticates proxies on Kubernetes,
    where `has_lease` tells whether this control plane leads.
    """
    store.on_commit(audited.recorder(audit))
    metrics = collectors or CollectorRegistry()
    base = build_foundation(settings, store, clock, audit, drivers, metrics, pod_tokens, has_lease, worker)
    known = build_state(base)
    rollouts = build_rollouts(base, known)
    root_renewal = RootRenewal(store, known.views, clock, base.turns, drivers)
    base.watch.on_jump(root_renewal.clock_jumped)
    streams = build_streams(base, known)
    users = UserTokens(store, clock, token_keys.of_users(settings))
    listening = build_listening(base, known, streams, users)
    components: tuple[tuple[str, aio.Component], ...] = (
        ("clock watch", base.watch),
        ("servers' certificate", base.certificate),
        ("insights", streams.insights),
        ("observed traffic", streams.traffic),
        ("mesh views", known.views),
        ("host names", known.host_names),
        *_among_others(base, known, rollouts, streams),
        ("deregistration", streams.deregistration),
        ("endpoint readiness", streams.readiness),
        ("health of workloads", streams.health),
        ("drain", rollouts.drain),
        ("rollouts", rollouts.controller),
        ("token revocation", streams.revocation),
        ("root renewal", root_renewal),
        ("clean-up of authorities", CleanUp(store, known.views, drivers)),
        ("discovery server", streams.server),
        ("bootstrap server", listening.dp),
        *listening.api.items(),
        ("diagnostics server", listening.diagnostics),
        ("ready log", _ready_log(base, listening, known.views)),
    )
    return ControlPlane(
        components,
        known.manager,
        known.views,
        known.proxies,
        known.meshes,
        users,
        streams.admin_ca,
        contexts.administration(base, known, streams),
        known.inbound_review,
        rollouts.leaves,
        rollouts.former,
        base.coordination,
        base.certificate,
        *listening,
    )


def _among_others(
    base: Foundation, known: State, rollouts: Rollouts, streams: Streams
) -> Iterable[tuple[str, aio.Component]]:
    """Returns what a control plane needs beside others, if there can be some."""
    peers = base.coordination
    if not isinstance(peers, Peers) or streams.isolation is None:
        return
    yield "other control planes", peers
    yield (
        "heartbeat",
        Heartbeat(base.store, base.clock, peers, contexts.describe(base, known, streams), streams.server.port),
    )
    yield "isolation", streams.isolation
    yield "reports of progress", rollouts.reports


def _ready_log(base: Foundation, listening: Servers, views: Views) -> ReadyLog:
    """Returns the message that is logged once everything listens."""
    api = listening.api
    named = {"api": api.get(HTTP) or api.get(HTTPS), "bootstrap": listening.dp}

    async def listed() -> None:
        await views.until(lambda: True)

    return ReadyLog(
        {name: server for name, server in named.items() if server is not None},
        (listed, listening.xds.port, listening.diagnostics.port, *(server.port for server in api.values())),
        {"work_dir": str(base.settings.work_dir), "ca": str(base.certificate.certificate.ca), **base.worker.facts},
        base.worker.tell_ready,
    )


async def prepare(settings: Settings, control_plane: ControlPlane) -> None:
    """Make what has to be in the store before anything serves."""
    await control_plane.users.ensure(admin_token=settings.api_server.authn.tokens.bootstrap_admin_token)
    await control_plane.envoy_admin_ca.ensure()
    for recalling in (control_plane.inbound_review, control_plane.leaves, control_plane.former):
        await recalling.recall(control_plane.manager.store)
    await _first_mesh(settings, control_plane.manager)


async def _first_mesh(settings: Settings, manager: ResourceManager) -> None:
    """Name a new store, and create the Mesh `default` in it, unless that is not wanted or there are meshes already.

    Several control planes may do this at once: what one of them has made stays, and what users have made of it since.
    """
    await _make(manager, Resource(kinds.CLUSTER_ID, ConfigSpec(config=str(uuid.uuid4()))))
    if settings.defaults.skip_mesh_creation or (await manager.list(kinds.MESH.name, limit=1)).total:
        return
    if await _make(manager, Resource(kinds.MESH.key("default"), MeshSpec())):
        log.info("mesh created", mesh="default")


async def _make(manager: ResourceManager, resource: Resource[Any]) -> bool:
    """Creates a resource unless there is one; returns whether there was none."""
    return (await manager.change(resource.key, lambda stored: stored or resource)).created
