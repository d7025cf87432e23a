"""One connected proxy's identity: issued when it connects, replaced in time, never kept beyond its stream."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import NamedTuple

import structlog

from kuma.base import aio
from kuma.base.clock import Clock
from kuma.base.errors import AccessDenied, KumaError, Unauthenticated
from kuma.base.rounds import Rounds
from kuma.pki.authority import Authority, AuthorityUnusable
from kuma.pki.issuer import Identity
from kuma.pki.leaf_rotation import has_been_set_back, rotation_time
from kuma.xds.envoy import tls
from kuma.xds.envoy.resource import Entry
from kuma.xds.proxies.leaves.issuance import LeafIssuer

log = structlog.get_logger(__name__)


class Wanted(NamedTuple):
    """Requirements on an identity: a difference in any of them needs a new one."""

    mesh: str
    authority: Authority
    uris: tuple[str, ...]
    lifetime: timedelta


class LeafKeeper:
    """Keeps the identity of one proxy as it is wanted. A failure keeps the last good one and is tried again."""

    def __init__(
        self,
        proxy: str,
        issuing: LeafIssuer,
        clock: Clock,
        wanted: Callable[[], Wanted | None],
        on_change: Callable[[], None],
        check_holder: Callable[[], None],
    ) -> None:
        """Keeps its collaborators; `check_holder` raises a `KumaError` if the proxy may be issued nothing any more."""
        self._proxy = proxy
        self._issuing = issuing
        self._clock = clock
        self._wanted = wanted
        self._on_change = on_change
        self._check_holder = check_holder
        self._rounds = Rounds(clock, f"rotation of {proxy}")
        self._settled = aio.Event()
        self._have: Wanted | None = None
        self._rotate_at: datetime | None = None
        self._failures = 0
        self._refused: Wanted | None = None
        """What could not be issued when it was tried last."""
        self._told: set[str] = set()
        """Reasons for that which have been logged since something was issued."""
        self.identity: Identity | None = None
        self.entry: Entry | None = None
        self.last_error = ""
        self.reason = ""

    def check(self) -> None:
        """Look again at what is wanted, and at the time."""
        self._rounds.wake()

    def follow(self) -> None:
        """Look again, if what is wanted may be something else now than there is."""
        try:
            if self._wanted() == self._have:
                return
        except AuthorityUnusable:
            pass  # which is told, and tried again
        self._rounds.wake()

    @property
    def is_current(self) -> bool:
        """Tells whether the identity is as it is wanted, or the best that can be had.

        An authority that nobody can open any more is waited for in vain: the change that leads away from it goes on.
        """
        try:
            return self._wanted() == self._have
        except AuthorityUnusable:
            return True

    @property
    def lifetime(self) -> timedelta | None:
        """Lifetime that the identity was issued with; None without one."""
        return self._have.lifetime if self._have else None

    @property
    def is_refused(self) -> bool:
        """Tells whether the identity is not as it is wanted because issuing it failed."""
        return self._refused is not None and not self.is_current and self._wanted() == self._refused

    async def settled(self) -> None:
        """Return once the first identity is there, or turned out to be not wanted or not to be had."""
        await self._settled.wait()

    async def run(self) -> None:
        """Issue, wait for the time of rotation or a change, and so on, until cancelled."""
        await self._rounds.run(self._look)

    async def _look(self) -> float | None:
        pause = await self._renew()
        self._settled.set()
        # In pieces: a machine that slept has to notice that time has passed.
        return None if pause is None else min(pause, _LONGEST_PAUSE)

    async def _renew(self) -> float | None:
        """Issue if it is time; returns the seconds until it will be, None if only a change can make it so."""
        wanted: Wanted | None = None
        try:
            wanted = self._wanted()
            if wanted is None:
                self._drop()
                return None
            is_of_later = self._is_of_later()
            is_due = is_of_later or self._rotate_at is None or self._clock.now() >= self._rotate_at
            if wanted == self._have and self._rotate_at is not None and not is_due:
                return self._until(self._rotate_at)
            reason = "clock set back" if is_of_later else _reason(wanted, self._have)
            since = self.identity.issued if self.identity else None
            self._check_holder()
            identity = await self._issuing.issue(
                self._proxy, wanted.mesh, wanted.authority, wanted.uris, wanted.lifetime, since=since, reason=reason
            )
            # Signing may take long: who was revoked, deleted or given another name meanwhile is given nothing by this.
            self._check_holder()
            is_still_wanted = _shows_nothing_else(identity, self._wanted())
        except KumaError as error:
            return self._failed(error, wanted)
        if not is_still_wanted:
            log.info("certificate given to nobody: its names changed while it was signed", proxy=self._proxy)
            return await self._renew()
        self.reason = reason
        self._keep(wanted, identity)
        return self._until(self._rotate_at) if self._rotate_at else None

    def _keep(self, wanted: Wanted, identity: Identity) -> None:
        # How early it is replaced differs from proxy to proxy, so that a mesh is not renewed in one instant.
        luck = random.random()  # noqa: S311 - spreads load, guards nothing
        self._rotate_at = rotation_time(self._clock.now(), identity.not_after, luck)
        self._have, self.identity = wanted, identity
        if self._told:
            log.info("certificate issued again", proxy=self._proxy, failures=self._failures)
        self._failures, self._refused, self.last_error = 0, None, ""
        self._told.clear()
        self.entry = tls.identity(wanted.mesh, identity.chain_pem, identity.key_pem)
        self._on_change()

    def _is_of_later(self) -> bool:
        return self.identity is not None and has_been_set_back(self.identity.issued, self._clock.now())

    def _drop(self) -> None:
        self._told.clear()
        if self.identity is not None:
            self.identity = self.entry = self._have = self._rotate_at = None
            self._on_change()

    def _failed(self, error: KumaError, wanted: Wanted | None) -> float:
        self._failures = self._failures + 1 if wanted == self._refused else 1
        self._refused = wanted
        pause = _RETRY.delay(self._failures)
        self.last_error = str(error)
        self._tell(error, pause)
        self._on_change()
        return pause

    def _tell(self, error: KumaError, pause: float) -> None:
        """Logs why nothing is issued, each reason once until something is: it is tried again and again."""
        reason = str(error)
        if reason in self._told:
            return
        if len(self._told) >= _MOST_REASONS:
            self._told.clear()
        self._told.add(reason)
        # A token that does not hold is no fault of anything here, and ends the stream.
        tell = log.warning if isinstance(error, Unauthenticated | AccessDenied) else log.error
        tell("certificate not issued", proxy=self._proxy, reason=reason, retry_in_seconds=pause)

    def _until(self, time: datetime) -> float:
        return max(0.0, (time - self._clock.now()).total_seconds())


def _shows_nothing_else(identity: Identity, wanted: Wanted | None) -> bool:
    """Tells whether an identity shows no other names than those that are wanted.

    It may show fewer, or be of another authority: it is better than none, and another one follows.
    """
    return wanted is not None and set(identity.uris) <= set(wanted.uris)


def _reason(wanted: Wanted, have: Wanted | None) -> str:
    """Returns the reason why a certificate is issued."""
    if have is None:
        return "connected"
    if wanted.authority.fingerprint != have.authority.fingerprint:
        return "authority changed"
    if wanted.uris != have.uris:
        return NAMES_CHANGED
    return "rotation" if wanted.lifetime == have.lifetime else "lifetime changed"


NAMES_CHANGED = "names changed"
"""The reason for a certificate that shows other services or tags than the one before."""
_LONGEST_PAUSE = 600.0
"""Seconds."""
_MOST_REASONS = 10
"""How many are remembered as told; some hold what differs each time."""
_RETRY = aio.Backoff(first=5, last=300)
