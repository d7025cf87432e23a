"""A control plane on Kubernetes: its store over the API server, its webhooks, and who of several leads.

Every control plane judges changes; the one that leads does everything else, and the others wait to take its place.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import structlog
from prometheus_client import CollectorRegistry

import kuma
from kuma.api.http.connections import ConnectionLimits
from kuma.api.http.server import HttpServer
from kuma.app import injected
from kuma.app.configuration.settings import Settings
from kuma.app.serving import server_certificate
from kuma.app.serving.certificate_watch import CertificateWatch
from kuma.base import aio
from kuma.base.audit import Audit
from kuma.base.clock import Clock
from kuma.base.errors import Unavailable
from kuma.base.tls.server_identity import ServerIdentity
from kuma.kubernetes.api import credentials
from kuma.kubernetes.api.client import ApiClient, ApiError
from kuma.kubernetes.api.informer import Informer
from kuma.kubernetes.controllers.jobs import End, EndedJobs
from kuma.kubernetes.controllers.meshes import MeshController
from kuma.kubernetes.controllers.pod_events import PodEvents
from kuma.kubernetes.controllers.pods import PodController
from kuma.kubernetes.controllers.weakened import WeakenedPermissions
from kuma.kubernetes.injection.options import Sidecars
from kuma.kubernetes.install import admission
from kuma.kubernetes.install.options import Options
from kuma.kubernetes.leadership import Lease
from kuma.kubernetes.metrics import Metrics
from kuma.kubernetes.objects.forms import Forms
from kuma.kubernetes.pod_label import PodLabel
from kuma.kubernetes.pod_tokens import PodTokens
from kuma.kubernetes.preconditions import Preconditions
from kuma.kubernetes.store.store import KubernetesStore
from kuma.kubernetes.webhooks.app import create_app
from kuma.kubernetes.webhooks.certificate import Renewal, SharedCertificate
from kuma.kubernetes.webhooks.dataplanes import DataplaneRules
from kuma.kubernetes.webhooks.defaults import Defaults
from kuma.kubernetes.webhooks.in_turn import InTurn
from kuma.kubernetes.webhooks.injector import Injector
from kuma.kubernetes.webhooks.registration import Registration
from kuma.kubernetes.webhooks.validation import Validation
from kuma.store.manager import ResourceManager
from kuma.store.views import Views

log = structlog.get_logger(__name__)

T = TypeVar("T")
Components = Sequence[tuple[str, aio.Component]]
_FOR_ALL = ("servers' certificate", "mesh views", "diagnostics server")
"""Components that run whether this control plane leads or not."""
_RETRY = aio.Backoff(first=0.5, last=5.0)
_REVIEWS = "/apis/authentication.k8s.io/v1/selfsubjectreviews"


@dataclass(frozen=True, slots=True)
class Cluster:
    """The cluster that the control plane is in. `settings` have the certificate that all control planes share."""

    settings: Settings
    client: ApiClient
    forms: Forms
    store: KubernetesStore
    user: str
    """Who we are to the API server."""
    collectors: CollectorRegistry
    clock: Clock
    shared: SharedCertificate | None
    """The certificate of all control planes, if the settings name no other."""
    pods: Informer
    tokens: PodTokens
    lease: Lease
    leading: ApiClient
    """The client of what a leader does: it changes nothing while another control plane may lead."""


@asynccontextmanager
async def opened(settings: Settings, clock: Clock) -> AsyncIterator[Cluster]:
    """Opens the store, and sees that there is a certificate, once the API server answers and lets us.

    A control plane that starts while it is away waits here: started again and again it would come late afterwards.

    Raises:
        Misconfigured: we are not told where the cluster is, or a Secret holds something else.
    """
    chosen, forms = settings.store.kubernetes, Forms(settings.store.kubernetes.system_namespace)
    collectors = CollectorRegistry()
    async with ApiClient(credentials.find(chosen.kubeconfig), Metrics(collectors)) as client:
        lease = _lease(settings, client, clock)
        leading = client.guarded(lease.check)
        store = KubernetesStore(leading, forms)
        try:
            await _once_answered(store.open, clock)
            user = await _once_answered(lambda: _user(client), clock)
            shared = None if settings.general.tls_cert_file else _shared(settings, client)
            if shared is not None:
                files = await _once_answered(partial(shared.ensure, settings.work_dir, clock.now()), clock)
                settings = _with_files(settings, files)
            pods = Informer(client, "/api/v1/pods")
            tokens = PodTokens(client, pods, injected.audience(settings, forms.system), clock)
            yield Cluster(
                settings, client, forms, store, user, collectors, clock, shared, pods, tokens, lease, leading
            )  # fmt: skip
        finally:
            await store.close()


async def _once_answered(ask: Callable[[], Awaitable[T]], clock: Clock) -> T:
    failures = 0
    while True:
        try:
            return await ask()
        except Unavailable as error:
            failures += 1
            log.warning("waiting for the Kubernetes API", reason=str(error))
            await clock.sleep(_RETRY.delay(failures))


def _lease(settings: Settings, client: ApiClient, clock: Clock) -> Lease:
    chosen = settings.runtime.kubernetes
    identity = chosen.pod_name or f"kuma-cp-{secrets.token_hex(4)}"
    deadline = chosen.leader_election.renew_deadline.seconds
    return Lease(
        client.within(deadline / 2),  # an answer that never comes leaves time to ask again
        settings.store.kubernetes.system_namespace,
        identity,
        clock,
        duration=chosen.leader_election.lease_duration.seconds,
        deadline=deadline,
    )


async def _user(client: ApiClient) -> str:
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    try:
        return str((await client.create(_REVIEWS, body))["status"]["userInfo"]["username"])
    except ApiError as error:
        raise Unavailable(f"the Kubernetes API does not say who we are: {error}") from None


def _shared(settings: Settings, client: ApiClient) -> SharedCertificate:
    namespace = settings.store.kubernetes.system_namespace
    own = server_certificate.own_names("127.0.0.1")
    return SharedCertificate(client, namespace, (*_names(settings, namespace), *own, *settings.general.hostnames))


def _with_files(settings: Settings, found: tuple[Path, Path, Path]) -> Settings:
    """Returns the settings with the files of a chain, its key and its CA."""
    files = dict(zip(("tls_cert_file", "tls_key_file", "tls_ca_file"), found, strict=True))
    return settings.model_copy(update={"general": settings.general.model_copy(update=files)})


def _names(settings: Settings, namespace: str) -> Sequence[str]:
    """Returns the names by which the Services are called."""
    services = (settings.runtime.kubernetes.control_plane_service_name, admission.SERVICE)
    return [
        f"{service}{end}"
        for service in services
        for end in ("", f".{namespace}", f".{namespace}.svc", f".{namespace}.svc.cluster.local")
    ]


async def run(
    cluster: Cluster,
    components: Components,
    manager: ResourceManager,
    views: Views,
    certificate: CertificateWatch,
    prepare: Callable[[], Awaitable[None]],
    end_proxy: End,
    audit: Audit,
) -> None:
    """Run until cancelled: webhooks at once, and everything else once this control plane leads.

    Raises:
        ComponentFailed: something ended that should not, or another control plane leads now.
    """
    leading = [(name, component) for name, component in components if name not in _FOR_ALL]
    guarded = cluster.settings.defaults.refuse_weakening
    known = (cluster.leading, cluster.forms, manager, views)
    leading += [
        ("pods", cluster.pods),
        ("mesh controller", MeshController(*known)),
        ("weakened permissions", WeakenedPermissions(views, cluster.client.metrics, audit, guarded=guarded)),
        ("pod controller", PodController(*known, cluster.pods)),
        ("sidecars of ended jobs", EndedJobs(cluster.pods, end_proxy)),
        ("events of pods", PodEvents(cluster.leading, cluster.pods)),
    ]
    pod = cluster.settings.runtime.kubernetes.pod_name
    sidecars = await injected.sidecars(cluster.settings, cluster.client, cluster.forms.system)
    label = PodLabel(cluster.leading, cluster.forms.system, pod)
    cluster.client.metrics.leads.set_function(lambda: float(cluster.lease.leads))
    await aio.supervise(
        [
            *((name, component) for name, component in components if name in _FOR_ALL),
            *_renewal(cluster),
            (
                "webhook server",
                _webhooks(cluster, manager, InTurn(views, guarded=guarded), certificate.identity, sidecars),
            ),
            ("webhook registration", Registration(cluster.client, injected.ca(cluster.settings))),
            ("label of the Pod", label),
            (
                "preconditions",
                Preconditions(cluster.client, _installation(cluster), cluster.clock, pod, certificate.validity),
            ),
            ("leader", _Leader(cluster.lease, label, _Leading(label, leading, prepare))),
        ]
    )


def _installation(cluster: Cluster) -> Options:
    return Options(namespace=cluster.forms.system, version=kuma.__version__)


def _renewal(cluster: Cluster) -> Components:
    if cluster.shared is None:
        return ()
    return [("renewal of the certificate", Renewal(cluster.shared, cluster.settings.work_dir, cluster.clock))]


def _webhooks(
    cluster: Cluster, manager: ResourceManager, order: InTurn, identity: ServerIdentity, sidecars: Sidecars
) -> HttpServer:
    validation = Validation(manager, cluster.forms, cluster.user, DataplaneRules(cluster.client), order)
    defaults = Defaults(cluster.client, cluster.forms)
    injector = Injector(cluster.client, manager, sidecars, injected.ca(cluster.settings), cluster.forms.system)
    app = create_app(
        {
            admission.DEFAULTS_PATH: defaults.answer,
            admission.VALIDATION_PATH: validation.answer,
            admission.SECRETS_PATH: validation.answer,
            admission.INJECTION_PATH: injector.answer,
        }
    )
    chosen = cluster.settings.runtime.kubernetes.admission_server
    limits = ConnectionLimits()
    return HttpServer(
        app,
        chosen.address,
        chosen.port,
        setting="KUMA_RUNTIME_KUBERNETES_ADMISSION_SERVER_PORT",
        tls=identity,
        limits=ConnectionLimits(per_address=limits.total),  # they all come from the API server
    )


class _Leader:
    """Leads, once it may."""

    def __init__(self, lease: Lease, label: PodLabel, leading: aio.Component) -> None:
        self._lease = lease
        self._label = label
        self._leading = leading

    async def run(self) -> None:
        """Lead until cancelled, or until another one does."""
        await self._lease.acquire()
        try:
            await aio.supervise([("lease", aio.Running(self._lease.keep)), ("leading", self._leading)])
        finally:
            await self._label.take()
            await self._lease.release()


class _Leading:
    """Work of a leader, while it keeps its lease."""

    def __init__(self, label: PodLabel, components: Components, prepare: Callable[[], Awaitable[None]]) -> None:
        self._label = label
        self._components = components
        self._prepare = prepare

    async def run(self) -> None:
        await self._prepare()
        self._label.put()
        await aio.supervise(self._components)
