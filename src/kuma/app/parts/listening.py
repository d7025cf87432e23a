"""Builds the HTTP servers, which stand on everything else."""

from __future__ import annotations

from kuma.api.app import create_app
from kuma.api.routes import diagnostics
from kuma.api.routes.bootstrap import create_bootstrap_app
from kuma.app import among_others
from kuma.app.parts import contexts
from kuma.app.parts.foundation import AnyStore, Foundation
from kuma.app.parts.state import State
from kuma.app.parts.streams import Streams
from kuma.app.serving import servers
from kuma.app.serving.servers import Servers
from kuma.base.system.peer_users import PeerUsers
from kuma.console import app as console
from kuma.kubernetes.store.store import KubernetesStore
from kuma.store.views import Views
from kuma.tokens.user_tokens import UserTokens
from kuma.xds.bootstrap.service import BootstrapService


def build_listening(base: Foundation, known: State, connected: Streams, users: UserTokens) -> Servers:
    """Builds the HTTP servers, and makes the ports of all servers known as our own."""
    settings, peers = base.settings, PeerUsers.of_this_system()
    context = contexts.of_api(base, known, connected, users, peers)
    api = create_app(context)
    console.install(api, contexts.of_console(base, known, connected, context))
    names, identity = base.certificate.names, base.certificate.identity
    bootstraps = BootstrapService(known.manager, known.views, known.authenticator, connected.server.port, names)
    limits = servers.limits(settings.dp_server.limits)
    dp = create_bootstrap_app(bootstraps.answer, connected.readiness.withdraw, limits, base.clock, base.audit)
    found = Servers(
        servers.api(settings.api_server, api, identity, base.audit, base.clock, peers, base.worker.listen),
        servers.data_plane(settings.dp_server, dp, identity, base.worker.listen),
        servers.diagnostics(
            settings.diagnostics,
            diagnostics.create_app(
                base.collectors,
                lambda: _unready(base.store, known.views),
                lambda: among_others.unhealthy(connected.isolation),
                base.can_use_store if base.worker.is_one_of_several else None,
            ),
            base.worker.listen,
        ),
        connected.server,
    )
    base.own_ports.add(found)
    connected.doors.add((*found.api.values(), found.dp))
    return found


def _unready(store: AnyStore, views: Views) -> str:
    if store.problem:
        what = store.problem if isinstance(store, KubernetesStore) else "the database cannot be used"
        return f"{what}; proxies keep what they have"
    return "" if views.listed else "what is stored has not been read yet"
