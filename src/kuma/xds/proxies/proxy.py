"""One connected proxy: its session, its identity, and which parts have to be generated again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache

import structlog

from kuma.base import aio
from kuma.base.clock import Clock
from kuma.base.errors import AccessDenied, KumaError, Unauthenticated
from kuma.base.values import addresses, contact_limit, farewell
from kuma.policy import remaining_access
from kuma.resources.models.dataplane import DataplaneSpec
from kuma.resources.models.dataplane_insight import AdministrationInsight, EnvoyFeatures, TokenInsight
from kuma.resources.models.last_contact import LastContact
from kuma.resources.models.mesh import DEFAULT_LEAF_LIFETIME
from kuma.resources.models.mesh_transition import Level
from kuma.resources.resource import Key, Resource
from kuma.tokens import dataplane_tokens
from kuma.tokens.dataplane_tokens import DataplaneClaims
from kuma.tokens.signing_keys import NotValidYet
from kuma.xds.delta.session import Confirmation, Request, Response, Session
from kuma.xds.envoy.listeners import access_log, admin_listener
from kuma.xds.envoy.node.capabilities import OLDEST, Capabilities
from kuma.xds.envoy.resource import Entry, TypeUrl
from kuma.xds.envoy.snapshot import MeshConfig, together
from kuma.xds.proxies.insights import Insights, Record
from kuma.xds.proxies.leaves.issuance import LeafIssuer
from kuma.xds.proxies.leaves.leaf import LeafKeeper, Wanted
from kuma.xds.proxies.meshes import Meshes, MeshState

log = structlog.get_logger(__name__)

_ATTEMPTS = 3
"""How often a snapshot is made again because something has changed meanwhile, before it is sent as it is."""

AdminSecrets = Callable[[str], Mapping[str, Entry]]
"""An address -> the secrets of the listener there that leads to Envoy's administration."""


@dataclass(frozen=True, slots=True)
class ProxyContext:
    """Collaborators that all proxies of a control plane share."""

    meshes: Meshes
    issuer: LeafIssuer
    insights: Insights
    clock: Clock
    admin_secrets: AdminSecrets
    check_token: Callable[[Key, str], None]
    """Dataplane and token; raises `Unauthenticated` if the token does not hold now."""


class Proxy:
    """The state of one stream. One coroutine reads it, one writes; both run on one loop."""

    __slots__ = (  # thousands are connected
        "__weakref__", "_acknowledged", "_admin", "_admin_secrets", "_check_token", "_clock", "_end", "_ended",
        "_farewell_digest", "_insights", "_is_renewal_due", "_meshes", "_outdated", "_published", "_told", "_touches",
        "_wake", "admin_port", "credential", "envoy", "gives_way", "holds_for", "host", "is_leaving", "keeper", "key",
        "last_contact", "on_progress", "record", "session", "token",
    )  # fmt: skip

    def __init__(
        self,
        key: Key,
        credential: str,
        token: DataplaneClaims,
        record: Record,
        context: ProxyContext,
        *,
        admin_port: int = 0,
        envoy: Capabilities = OLDEST,
        host: str = "",
        farewell_digest: str = "",
        holds_for: float = 0.0,
    ) -> None:
        self.key = key
        self.admin_port = admin_port
        self.envoy = envoy
        self.host = host
        """The IP address that its stream comes from."""
        self.holds_for = holds_for
        """For how many seconds what it listens by holds; 0 if for ever."""
        self._farewell_digest = farewell_digest
        record.administration = _administration(admin_port, host, envoy)
        record.token = TokenInsight(expiration_time=token.expires, warning_time=token.warned)
        self.credential = credential
        self.token = token
        self.session = Session()
        self.record = record
        self.keeper = LeafKeeper(
            f"{key.mesh}.{key.name}",
            context.issuer,
            context.clock,
            self._wanted,
            self._identity_changed,
            self._check_holder,
        )
        self._check_token = context.check_token
        self.is_leaving = False
        """It has said that it is about to end."""
        self.gives_way = False
        """It has said so itself, so that another one may take its place."""
        self.last_contact: LastContact | None = None
        """What it may go on doing, once its stream has ended."""
        self._published: MeshConfig | None = None
        self._acknowledged: MeshConfig | None = None
        """Of which it was sent all that concerns it, and of which it has acknowledged all."""
        self.on_progress: Callable[[Proxy], None] = _tell_nobody
        self._told: tuple[bool, bool] | None = None
        """What of its answers was part of the last progress; None if something else has changed since then."""
        self._meshes = context.meshes
        self._insights = context.insights
        self._clock = context.clock
        self._admin_secrets = context.admin_secrets
        self._admin: tuple[str, Mapping[str, Entry]] = ("", {})
        self._outdated = True
        self._touches = 0
        """How often that was said."""
        self._wake = aio.Event()
        self._is_renewal_due = False
        self._end: KumaError | None = None
        self._ended: asyncio.Future[KumaError] | None = None
        """Whoever waits for the end."""

    def end(self, reason: KumaError) -> None:
        """Ends the stream, because another one has replaced it or its token no longer holds."""
        self._end = self._end or reason
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(self._end)

    def is_at(self, host: str) -> bool:
        """Tells whether an IP address is where its stream comes from."""
        return addresses.are_of_one_machine(host, self.host)

    def is_ended_by(self, host: str, proof: str) -> bool:
        """Tells whether it is itself who says that it ends: from where it is, or by what only its kuma-dp knows."""
        return self.is_at(host) or farewell.proves(proof, self._farewell_digest)

    def ended(self) -> asyncio.Future[KumaError]:
        """Returns what has the reason once the stream is to end: for one who waits, which it costs no task."""
        self._ended = asyncio.get_running_loop().create_future()
        if self._end is not None:
            self._ended.set_result(self._end)
        return self._ended

    def note_change(self) -> None:
        """Notes that what this proxy should run may have changed; `follow_change` is to be called soon."""
        self._look_again()

    def follow_change(self) -> None:
        """Looks whether another identity is wanted, and tells that there may be something to do."""
        self.keeper.follow()
        self._progressed()

    @property
    def converged(self) -> bool:
        """Tells whether the proxy has acknowledged all that it should run now, with an identity as it should be."""
        return self.has_acknowledged and self.keeper.is_current

    @property
    def has_acknowledged(self) -> bool:
        """Tells whether it has acknowledged all that there is for it now, even if its identity is missing."""
        return not self._outdated and self.session.converged

    @property
    def serves(self) -> bool:
        """Tells whether callers may be sent here: it has answered to its whole configuration, and is not about to end.

        Without an identity Envoy acknowledges listeners for mutual TLS, and lets nobody in there.
        """
        level = self._meshes.state(self.key.mesh).config.level
        lets_in = level is Level.PLAIN or self.keeper.entry is not None
        return self.has_answered and not self.is_leaving and lets_in

    @property
    def has_answered(self) -> bool:
        """Tells whether it has answered to all that there is for it now, by taking or by rejecting it."""
        return not self._outdated and self.session.answered

    @property
    def is_unserved(self) -> bool:
        """Tells whether this control plane fails to issue the identity that the proxy should have."""
        return self.keeper.is_refused

    async def something_to_do(self) -> None:
        """Return once `responses` may have something to say."""
        await self._wake.wait()
        self._wake.clear()

    async def renew(self) -> None:
        """Has what it listens by sent again and again before that holds no more, until cancelled."""
        pause = contact_limit.first_renewal(self.holds_for)
        while True:
            await self._clock.sleep(pause)
            self._is_renewal_due = True
            self._wake.set()
            pause = contact_limit.renewal(self.holds_for)

    def receive(self, request: Request) -> None:
        """Take in what the proxy says."""
        confirmation = self.session.receive(request)
        if self.session.may_respond:
            self._wake.set()
        self._tell_if_changed()
        if confirmation is not None:
            self._count(confirmation)
        self._forget_rejections()

    @property
    def _answers(self) -> tuple[bool, bool]:
        return self.has_acknowledged, self.has_answered

    def _tell_if_changed(self) -> None:
        """Tells of a progress, if it is one: most of what thousands say at once completes nothing."""
        self._note_acknowledged()
        if self._told != self._answers:
            self._progressed()

    def _progressed(self) -> None:
        self._told = self._answers
        self.on_progress(self)

    def _count(self, confirmation: Confirmation) -> None:
        self.record.last_update = self._clock.now()
        counters = self.record.counters[confirmation.type_url]
        if confirmation.error is None:
            counters.acked += 1
            self._insights.count(self.record)
        else:
            counters.rejected += 1
            counters.rejection = confirmation.error
            self._note_unwritable(access_log.unwritable(confirmation.error))
            log.error(
                "proxy rejected its configuration",
                mesh=self.key.mesh,
                dataplane=self.key.name,
                type=confirmation.type_url.bucket,
                reason=confirmation.error,
            )
            self._insights.note(self.record)

    def _note_unwritable(self, paths: frozenset[str]) -> None:
        """Has no listener write to files that Envoy cannot open: it would keep its older rules and certificates."""
        if paths - self.envoy.unwritable:
            self.envoy = self.envoy._replace(unwritable=self.envoy.unwritable | paths)
            self.record.administration = _administration(self.admin_port, self.host, self.envoy)
            self._look_again()

    def _forget_rejections(self) -> None:
        """Forgets rejections of what may be accepted now, or is not wanted any more."""
        for type_url, counters in self.record.counters.items():
            if counters.rejection and not self.session.rejects(type_url):
                counters.rejection = ""
                self._insights.note(self.record)

    def _look_again(self) -> None:
        self._outdated, self._told = True, None
        self._touches += 1
        self._wake.set()

    async def publish(self) -> bool:
        """Takes up what it should run now, if that may be something else; returns whether it did.

        Making it may take several turns.
        """
        if not self._outdated:
            return False
        for _ in range(_ATTEMPTS):
            touches = self._touches
            state, entries = await self._meshes.entries(self.key, self.admin_port, self.envoy)
            if touches == self._touches:
                break
        self._outdated = touches != self._touches  # then this is what it runs on its way to something newer
        self._note_certificate()
        self._note_acknowledged()
        not_served = state.config.not_served(self.key.name, self.admin_port, self.envoy.unwritable)
        if self.record.inbounds(not_served, self._meshes.unresolved(self.key)):
            self._insights.note(self.record)
        self.session.publish(together(entries, self._secrets(state)))
        self._published = state.config
        self._forget_rejections()
        self._tell_if_changed()  # there may be nothing to send
        return True

    def responses(self) -> Iterator[Response]:
        """Returns what to send now, and counts it as sent."""
        for response in self.session.responses():
            self.record.counters[response.type_url].sent += 1
            self.record.last_update = self._clock.now()
            self._insights.count(self.record)
            yield response
        # After what has changed: what it renews must not come after that.
        if self._is_renewal_due and self.session.is_asked_for(TypeUrl.LISTENER):
            self._is_renewal_due = False
            yield from self.session.renewals(TypeUrl.LISTENER)

    def _note_acknowledged(self) -> None:
        if self.session.converged:
            self._acknowledged = self._published

    def lose(self) -> None:
        """Notes what it may go on doing: its stream has ended, and it has not said that it ends."""
        identity = self.keeper.identity
        if identity is None or self.is_leaving:
            return  # without a certificate nobody in the mesh admits it, nor can it admit anybody
        self._note_acknowledged()
        self.last_contact = LastContact(
            since=self._clock.now(),
            may_serve_until=identity.not_after,
            admits=_admits(self._acknowledged, self.key.name) if self._acknowledged else (),
            unanswered=self.session.unanswered,
        )

    def _secrets(self, state: MeshState) -> Mapping[str, Entry]:
        if state.config.is_excluded(self.key.name):
            return {}  # nothing that it runs would ask for one
        found = dict(self._administration(state.config.view.dataplanes.get(self.key.name)))
        if state.config.level is not Level.PLAIN:
            found |= {entry.name: entry for entry in (self.keeper.entry, state.bundle) if entry is not None}
        return found

    def _administration(self, dataplane: Resource[DataplaneSpec] | None) -> Mapping[str, Entry]:
        """The secrets of the listener before Envoy's administration: made once, again for another address."""
        if dataplane is None or not self.admin_port or not admin_listener.is_remote(dataplane.spec.net):
            return {}
        if self._admin[0] != dataplane.spec.net.address:
            self._admin = dataplane.spec.net.address, self._admin_secrets(dataplane.spec.net.address)
        return self._admin[1]

    def _wanted(self) -> Wanted | None:
        state = self._meshes.state(self.key.mesh)
        uris = state.config.uris(self.key.name)
        if state.config.level is Level.PLAIN or not uris:
            return None
        backend = state.config.view.enabled_backend
        lifetime = backend.leaf_lifetime if backend else self.keeper.lifetime or DEFAULT_LEAF_LIFETIME
        return Wanted(self.key.mesh, state.trust.issuing, uris, lifetime)

    def _check_holder(self) -> None:
        """Sees that its token holds, for its Dataplane as it is now. That its stream ends may follow a little later.

        Raises:
            Unauthenticated: it does not hold; the stream is to end.
            AccessDenied: it is not for this Dataplane any more; the stream is to end.
        """
        dataplane = self._meshes.state(self.key.mesh).config.view.dataplanes.get(self.key.name)
        try:
            with suppress(NotValidYet):  # it was valid when the stream began, so the clock has been set back
                self._check_token(self.key, self.credential)
            if dataplane is not None:
                dataplane_tokens.authorize(self.token, dataplane.mesh, dataplane.name, dataplane.spec)
        except (Unauthenticated, AccessDenied) as error:
            self.end(error)
            raise

    def _identity_changed(self) -> None:
        self._look_again()
        self._note_certificate()

    def _note_certificate(self) -> None:
        supported = self._meshes.state(self.key.mesh).trust.supported
        if self.record.certificate(self.keeper.identity, supported, self._clock.now(), self.keeper.reason):
            self._insights.note(self.record)


def _tell_nobody(_: Proxy) -> None:
    """Stands for who hears of the progress of a proxy that is not connected."""


def _administration(port: int, host: str, envoy: Capabilities) -> AdministrationInsight:
    return AdministrationInsight(port=port, host=host, features=_features(envoy))


@lru_cache(maxsize=1000)
def _features(envoy: Capabilities) -> EnvoyFeatures:
    """Returns what an Envoy can do: the same object for all that can do the same."""
    return EnvoyFeatures(**{**envoy._asdict(), "unwritable": tuple(sorted(envoy.unwritable))})


def _admits(config: MeshConfig, name: str) -> tuple[str, ...]:
    return remaining_access.admits(config.view, config.admissions.admission_of, name, config.withheld(name))
