"""Registers the metrics that are read off other parts at the moment of asking."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector

from kuma.api.http.costly import CostlyRequests
from kuma.app.serving.certificate_watch import CertificateWatch
from kuma.base.clock import Clock
from kuma.coordination.coordination import Coordination
from kuma.kubernetes.store.store import KubernetesStore
from kuma.store.sql.store import SqlStore
from kuma.store.views import Views
from kuma.xds.proxies.connected_proxies import Proxies
from kuma.xds.proxies.metrics import EarliestEnd
from kuma.xds.proxies.problem_metrics import MeshStates, ProxyProblems


def of_control_plane(
    registry: CollectorRegistry,
    store: SqlStore | KubernetesStore,
    coordination: Coordination,
    certificate: CertificateWatch,
) -> None:
    """Shows whether the store can be used, whether this control plane leads, its certificate, and what it takes."""
    if not isinstance(store, KubernetesStore):  # there a lease says who leads, and its own metrics tell
        leads = Gauge(
            "control_plane_leads",
            "1 if this control plane does what only one may do at a time; always, if it is the only one.",
            registry=registry,
        )
        leads.set_function(lambda: coordination.leads)
    unusable = Gauge("store_unusable", "1 while what is stored can be neither read nor changed.", registry=registry)
    unusable.set_function(lambda: bool(store.problem))
    if isinstance(store, SqlStore):
        left_out = Gauge(
            "store_resources_not_understood",
            "What control planes of a newer version tell, and this one leaves out because it does not understand it.",
            registry=registry,
        )
        left_out.set_function(lambda: len(store.not_understood))
    ends = Gauge(
        "server_certificate_expiration_timestamp_seconds",
        "When the certificate ends that the control plane's servers show, in seconds since 1970.",
        registry=registry,
    )
    ends.set_function(lambda: certificate.validity().ends.timestamp())
    ProcessCollector(registry=registry)


def of_costly_requests(registry: CollectorRegistry) -> CostlyRequests:
    """Returns the turns of costly requests; shows how many have one, how many wait, and how many may not even wait."""
    refused = Counter(
        "api_costly_requests_refused",
        "Costly requests to the API and the console that were refused, because too many were waiting.",
        registry=registry,
    )
    turns = CostlyRequests(refused=refused.inc)
    gauge = Gauge(
        "api_costly_requests",
        "Costly requests to the API and the console: those that are answered now, and those that wait.",
        ["state"],
        registry=registry,
    )
    gauge.labels("running").set_function(lambda: turns.running)
    gauge.labels("waiting").set_function(lambda: turns.waiting)
    return turns


def of_meshes(registry: CollectorRegistry, views: Views, proxies: Proxies, clock: Clock) -> None:
    """Shows how far each mesh is, when the first certificate and token end, and which proxies need attention."""
    for name, text, ends in (
        (
            "cert_expiration_timestamp_seconds",
            "When the first certificate of a mesh's connected proxies ends, in seconds since 1970.",
            _ends_of_leaves,
        ),
        (
            "dataplane_token_expiration_timestamp_seconds",
            "When the first token of a mesh's connected proxies ends, in seconds since 1970.",
            _ends_of_tokens,
        ),
    ):
        registry.register(EarliestEnd(name, text, functools.partial(ends, proxies)))
    registry.register(MeshStates(views))
    registry.register(ProxyProblems(proxies, clock))


def _ends_of_leaves(proxies: Proxies) -> Iterator[tuple[str, datetime]]:
    for proxy in proxies:
        if proxy.keeper.identity is not None:
            yield proxy.key.mesh, proxy.keeper.identity.not_after


def _ends_of_tokens(proxies: Proxies) -> Iterator[tuple[str, datetime]]:
    for proxy in proxies:
        yield proxy.key.mesh, proxy.token.expires
