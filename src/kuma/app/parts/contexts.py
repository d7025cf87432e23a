"""Builds what the API and the console are given of the other parts."""

from __future__ import annotations

from kuma.api.context import ApiContext, ApiSettings, Connected, Tokens, no_rekey
from kuma.app import among_others, api_context
from kuma.app import metrics as app_metrics
from kuma.app.among_others import Described
from kuma.app.configuration.settings import XdsServerSection
from kuma.app.local_admins import local_admins
from kuma.app.parts.foundation import Foundation
from kuma.app.parts.state import State
from kuma.app.parts.streams import Streams
from kuma.app.serving import servers
from kuma.base.system.peer_users import PeerUsers
from kuma.console.context import ConsoleContext
from kuma.console.followed import Followed
from kuma.console.sessions import Sessions
from kuma.foresight.course import Pace
from kuma.store.sql.store import SqlStore
from kuma.tokens.user_tokens import UserTokens
from kuma.xds.administration.admin_client import AdminClient
from kuma.xds.proxies.elsewhere.certified_elsewhere import CertifiedElsewhere
from kuma.xds.proxies.elsewhere.proxies_elsewhere import ProxiesElsewhere


def of_api(
    base: Foundation, known: State, connected: Streams, users: UserTokens, peers: PeerUsers | None
) -> ApiContext:
    """Returns what the API is given of the other parts."""
    settings = base.settings.api_server
    elsewhere = ProxiesElsewhere(base.store, base.coordination)
    described = describe(base, known, connected)
    return ApiContext(
        manager=known.manager,
        instance=base.instance,
        instances=lambda: among_others.instances(base.coordination, base.instance, described, base.has_lease()),
        settings=ApiSettings(
            local_admins(settings.authn, peers),
            servers.access(base.settings.access),
            read_only=base.settings.environment == "kubernetes",
        ),
        tokens=Tokens(
            issue=api_context.issue_token(
                known.views,
                base.clock,
                base.audit,
                enabled=base.settings.dp_server.authn.dp_proxy.dp_token.enable_issuer,
            ),
            issue_user=api_context.issue_user_token(users, base.audit),
            verify=api_context.verify_user(users),
        ),
        connected=Connected(
            certificates=api_context.certificates(
                known.proxies, CertifiedElsewhere(known.views, base.coordination), base.turns
            ),
            wanted_configuration=api_context.wanted_configuration(known.meshes, known.proxies, elsewhere),
            envoys=administration(base, known, connected),
        ),
        observation=api_context.observation(
            known.views, base.store, connected.traffic, base.clock, _pace(base.settings.xds_server)
        ),
        clock=base.clock,
        limits=servers.limits(settings.limits),
        costly=app_metrics.of_costly_requests(base.collectors),
        configuration=base.settings.model_dump(by_alias=True, mode="json"),
        server_certificate=base.certificate.validity,
        rekey=api_context.rekey(base.store, base.audit) if isinstance(base.store, SqlStore) else no_rekey,
        audit=base.audit,
    )


def of_console(base: Foundation, known: State, connected: Streams, context: ApiContext) -> ConsoleContext:
    """Returns what the console is given beside what the API has."""
    return ConsoleContext(
        api=context,
        sessions=Sessions(base.store, base.clock),
        followed=Followed(known.views),
        observed=api_context.observed(connected.traffic, base.clock),
        record=connected.record,
    )


def describe(base: Foundation, known: State, connected: Streams) -> Described:
    """Returns what describes this control plane to the others, and to whoever asks."""
    keys = base.store.keyring.look if isinstance(base.store, SqlStore) else tuple
    return Described(base.settings, base.started, base.clock, known.proxies, lambda: connected.server.bound, keys)


def administration(base: Foundation, known: State, connected: Streams) -> AdminClient:
    """Builds the client of Envoys' administration."""
    elsewhere = ProxiesElsewhere(base.store, base.coordination)
    return AdminClient(known.meshes, known.proxies, connected.admin_ca.control_plane, base.own_ports, elsewhere)


def _pace(limits: XdsServerSection) -> Pace:
    return Pace(limits.transition_patience.delta, limits.transition_absence.delta, limits.connection_drain.delta)
