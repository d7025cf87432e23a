"""Implements what the API asks of other parts, none of which it imports."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import structlog

from kuma.api.context import Certificate, IssueToken, IssueUserToken, Observation
from kuma.api.http.access_control import VerifyToken
from kuma.base.audit import Audit
from kuma.base.clock import Clock
from kuma.base.errors import AccessDenied
from kuma.base.turns import Turns
from kuma.console.context import Observed
from kuma.foresight.course import Pace
from kuma.resources import kinds
from kuma.resources.models.dataplane_insight import MtlsInsight
from kuma.resources.models.observed_traffic import ObservedTrafficSpec
from kuma.resources.resource import Key
from kuma.store.protocol import Store
from kuma.store.sql.store import SqlStore
from kuma.store.views import Views
from kuma.tokens import dataplane_tokens, signing_keys
from kuma.tokens.user_tokens import UserTokens
from kuma.tokens.validation import NOT_ISSUED
from kuma.xds.envoy import config_dump
from kuma.xds.envoy.node.capabilities import OLDEST, Capabilities
from kuma.xds.observation.edges import together
from kuma.xds.proxies.connected_proxies import Proxies
from kuma.xds.proxies.elsewhere.certified_elsewhere import CertifiedElsewhere
from kuma.xds.proxies.elsewhere.proxies_elsewhere import ProxiesElsewhere
from kuma.xds.proxies.meshes import Meshes
from kuma.xds.proxies.proxy import Proxy
from kuma.xds.proxies.traffic_recorder import TrafficRecorder

log = structlog.get_logger(__name__)


def issue_token(views: Views, clock: Clock, audit: Audit, *, enabled: bool) -> IssueToken:
    """Issues dataplane tokens, unless that is not enabled, and has that recorded."""

    async def issue(
        mesh: str, name: str, tags: Mapping[str, Sequence[str]], proxy_type: str, valid_for: timedelta
    ) -> str:
        if not enabled:
            raise AccessDenied(NOT_ISSUED)
        token = dataplane_tokens.issue_token(
            mesh,
            views.view(mesh).secrets,
            name=name,
            tags=tags,
            kind=proxy_type,
            valid_for=valid_for,
            now=clock.now(),
        )
        audit.record("token issued", kind="dataplane", mesh=mesh, name=name, tags=tags, **signing_keys.described(token))
        return token

    return issue


def issue_user_token(users: UserTokens, audit: Audit) -> IssueUserToken:
    """Issues user tokens, and has that recorded."""

    async def issue(name: str, groups: Sequence[str], valid_for: timedelta) -> str:
        token = await users.issue(name, groups, valid_for)
        audit.record("token issued", kind="user", name=name, groups=groups, **signing_keys.described(token))
        return token

    return issue


def observation(views: Views, store: Store, recorder: TrafficRecorder, clock: Clock, pace: Pace) -> Observation:
    """Shows what was observed: what is stored, and what was heard since."""

    async def traffic(mesh: str) -> Mapping[str, ObservedTrafficSpec]:
        stored = {found.name: found.spec for found in (await store.list(kinds.OBSERVED_TRAFFIC.name, mesh)).items}
        unwritten, now = recorder.unwritten(mesh), clock.now()
        return {
            name: together([spec for spec in (stored.get(name), unwritten.get(name)) if spec is not None], now)
            for name in stored.keys() | unwritten.keys()
        }

    return Observation(
        meshes=lambda: [name for name in views.meshes if views.view(name).mesh is not None],
        view=views.view,
        traffic=traffic,
        pace=pace,
    )


def observed(recorder: TrafficRecorder, clock: Clock) -> Observed:
    """Adds to what is stored of a mesh's traffic what was heard since."""

    def with_unwritten(mesh: str, stored: Mapping[str, ObservedTrafficSpec]) -> Mapping[str, ObservedTrafficSpec]:
        now = clock.now()
        heard = {
            name: together([stored[name], spec] if name in stored else [spec], now)
            for name, spec in recorder.unwritten(mesh).items()
        }
        return {**stored, **heard}

    return with_unwritten


def verify_user(users: UserTokens) -> VerifyToken:
    """Tells whom a user token names."""

    async def verify(token: str) -> tuple[str, tuple[str, ...]]:
        user = await users.verify(token)
        return user.name, user.groups

    return verify


def rekey(store: SqlStore, audit: Audit) -> Callable[[], Awaitable[None]]:
    """Seals the store anew, and has that recorded."""

    async def seal_anew() -> None:
        await store.rekey()
        audit.record("secrets sealed anew")
        log.info("secrets sealed anew under a new key-encryption key")

    return seal_anew


def wanted_configuration(
    meshes: Meshes, proxies: Proxies, elsewhere: ProxiesElsewhere
) -> Callable[[str, str], Awaitable[Mapping[str, object]]]:
    """Tells what the proxy of a Dataplane should run, whichever control plane it is connected to."""

    async def said_of(key: Key) -> tuple[int, Capabilities]:
        proxy = proxies.get(key)
        if proxy is not None:
            return proxy.admin_port, proxy.envoy
        found = await elsewhere.find(key)
        if found is None:
            return 0, OLDEST
        features = found.features.model_dump()
        return found.port, Capabilities(**{**features, "unwritable": frozenset(found.features.unwritable)})

    async def wanted(mesh: str, name: str) -> Mapping[str, object]:
        said = await said_of(kinds.DATAPLANE.key(name, mesh))
        state = meshes.state(mesh)
        bundle = [state.bundle] if state.bundle else []
        return {"xds": config_dump.wanted(state.config.snapshot(name, {e.name: e for e in bundle}, *said))}

    return wanted


def certificates(
    proxies: Proxies, elsewhere: CertifiedElsewhere, turns: Turns
) -> Callable[[], Awaitable[Sequence[Certificate]]]:
    """Tells the certificates that connected proxies use now.

    Those of proxies that are connected to other control planes are told as these have stored them, within a second.
    """

    async def used() -> Sequence[Certificate]:
        connected = list(proxies)
        here = await turns.collect(_certificate(proxy) for proxy in connected if proxy.keeper.identity is not None)
        known = {(one.mesh, one.dataplane) for one in here}
        told = await turns.collect(_told(key, mtls) for key, mtls in elsewhere() if (key.mesh, key.name) not in known)
        return [*here, *told]

    return used


def _told(insight: Key, mtls: MtlsInsight) -> Certificate:
    end = mtls.certificate_expiration_time or datetime.min.replace(tzinfo=UTC)
    return Certificate(
        mesh=insight.mesh,
        dataplane=insight.name,
        serial=mtls.serial,
        spiffe_ids=mtls.spiffe_ids,
        authority=mtls.issued_backend,
        not_before=mtls.not_before or end,
        not_after=end,
        reason=mtls.reason,
    )


def _certificate(proxy: Proxy) -> Certificate:
    identity = proxy.keeper.identity
    assert identity is not None
    return Certificate(
        mesh=proxy.key.mesh,
        dataplane=proxy.key.name,
        serial=f"{identity.serial:x}",
        spiffe_ids=identity.uris,
        authority=identity.backend,
        not_before=identity.not_before,
        not_after=identity.not_after,
        reason=proxy.keeper.reason,
    )
