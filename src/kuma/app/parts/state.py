"""Builds the views of what is stored, the table of connected proxies, and the manager with the rules of each kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kuma.admission.dataplane_rules import DataplaneRules
from kuma.admission.membership_rules import MembershipRules
from kuma.admission.mesh_rules import MeshRules
from kuma.admission.permission_rules import PermissionRules
from kuma.admission.secret_rules import SecretRules
from kuma.admission.token_rules import TokenRules
from kuma.app import metrics as app_metrics
from kuma.app import token_keys
from kuma.app.parts.foundation import Foundation
from kuma.app.serving import servers
from kuma.base.system.name_service import NameService
from kuma.resources import kinds
from kuma.store.manager import ResourceManager, Rules
from kuma.store.views import Views
from kuma.xds.proxies.connected_proxies import Proxies
from kuma.xds.proxies.host_names import HostNames
from kuma.xds.proxies.inbound_review import InboundReview
from kuma.xds.proxies.meshes import Meshes
from kuma.xds.proxies.metrics import Metrics
from kuma.xds.stream.proxy_authentication import Authenticator


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Views of what is stored, and the connected proxies."""

    views: Views
    proxies: Proxies
    host_names: HostNames
    meshes: Meshes
    inbound_review: InboundReview
    manager: ResourceManager
    authenticator: Authenticator
    metrics: Metrics


def build_state(base: Foundation) -> State:
    """Builds the views, the table of proxies, and the manager with its rules."""
    views, proxies, metrics = Views(base.store), Proxies(), Metrics(base.collectors)
    app_metrics.of_control_plane(base.collectors, base.store, base.coordination, base.certificate)
    app_metrics.of_meshes(base.collectors, views, proxies, base.clock)
    linger = base.settings.xds_server.connection_linger.delta
    ttl = base.settings.general.dns_cache_ttl.seconds
    host_names = HostNames(base.clock, ttl, metrics.unresolved, NameService().resolve)
    in_kubernetes = base.settings.store.type == "kubernetes"
    how = (base.turns, base.drivers, linger, host_names)
    meshes = Meshes(views, proxies.touch, *how, has_service_addresses=in_kubernetes)
    allowed = servers.allowed_workloads(base.settings.dp_server)
    networks = servers.dataplane_networks(base.settings.dp_server)
    inbound_review = InboundReview(meshes, proxies, base.own_ports, allowed, networks, metrics.withheld)
    rules = _rules(base, views, inbound_review)
    manager = ResourceManager(base.store, rules, strict=base.settings.general.strict)
    for told in (metrics, proxies):
        base.watch.on_jump(told.clock_jumped)
    return State(
        views=views,
        proxies=proxies,
        host_names=host_names,
        meshes=meshes,
        inbound_review=inbound_review,
        manager=manager,
        authenticator=Authenticator(manager, views, base.clock, token_keys.of_proxies(base.settings), base.pod_tokens),
        metrics=metrics,
    )


def _rules(base: Foundation, views: Views, inbound_review: InboundReview) -> Mapping[str, Rules]:
    """Returns the admission rules of each kind."""
    guarded = base.settings.defaults.refuse_weakening
    permissions = PermissionRules(views, base.turns, guarded=guarded)
    return {
        kinds.MESH.name: MeshRules(base.clock, base.drivers, guarded=guarded),
        kinds.DATAPLANE.name: MembershipRules(
            DataplaneRules(inbound_review.surroundings_of, permissions.permissions, base.turns, guarded=guarded)
        ),
        kinds.SECRET.name: TokenRules(SecretRules(base.clock, base.drivers, guarded=guarded), guarded=guarded),
        kinds.GLOBAL_SECRET.name: TokenRules(guarded=guarded),
        kinds.TRAFFIC_PERMISSION.name: permissions,
        kinds.MESH_TRAFFIC_PERMISSION.name: permissions,
    }
