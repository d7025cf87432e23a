"""Ends streams whose token no longer holds: when the Secrets that tokens go by change, and on expiry.

Warns of an expiry long before. Of thousands of streams, tokens are verified in short turns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Protocol

import structlog

from kuma.base.clock import Clock
from kuma.base.errors import KumaError, Unauthenticated
from kuma.base.rounds import Rounds
from kuma.base.turns import Turns
from kuma.resources.models.secret import Secrets
from kuma.resources.resource import Key
from kuma.store.views import Views
from kuma.tokens import dataplane_tokens
from kuma.tokens.dataplane_tokens import DataplaneClaims
from kuma.tokens.signing_keys import NotValidYet
from kuma.xds.proxies.connected_proxies import Proxies
from kuma.xds.proxies.proxy import Proxy

log = structlog.get_logger(__name__)

_LONGEST_PAUSE = 600.0
"""Seconds; a machine that slept notices within this time."""
_NAMED = 10
"""Dataplanes that one warning names."""
_NEVER = datetime.max.replace(tzinfo=UTC)

Check = Callable[[Key, str], None]
"""Dataplane and token; raises `Unauthenticated` if the stream may not go on."""


class Holder(Protocol):
    """A stream that somebody has by a token."""

    @property
    def key(self) -> Key: ...

    @property
    def credential(self) -> str: ...

    @property
    def token(self) -> DataplaneClaims: ...

    def end(self, reason: KumaError) -> None:
        """Ends the stream."""


class TokenRevocation:
    """Looks at the tokens of a mesh's streams when what they go by has changed, and at each when it expires."""

    def __init__(self, views: Views, proxies: Proxies, clock: Clock, check: Check, turns: Turns) -> None:
        self._views = views
        self._proxies = proxies
        self._clock = clock
        self._check_one = check
        self._turns = turns
        self._others: set[Holder] = set()
        """Streams of proxies beside those of discovery."""
        self._seen: dict[str, tuple[Secrets, Secrets]] = {}
        """The Secrets of each mesh, and those of them that tokens go by."""
        self._due: set[str] = set()
        """The meshes whose tokens go by something else now."""
        self._warned: set[Key] = set()
        """Proxies whose present token has been warned of."""
        self._following = _NEVER
        """When the next token is to be warned of, or expires."""
        self._rounds = Rounds(clock, "expiry of tokens")
        views.on_change(self._changed)
        proxies.on_progress(self._progressed)

    def clock_jumped(self, _: timedelta) -> None:
        """Looks again: other tokens may have expired by now."""
        self._rounds.wake()

    def look_at(self, name: str) -> None:
        """Looks at the tokens of the streams for Dataplanes of a name: what they were issued for has changed."""
        for stream in self._streams():
            if stream.key.name == name:
                self._check(stream)

    @contextmanager
    def watched(self, stream: Holder) -> Iterator[None]:
        """Surrounds a stream beside discovery, which may have been opened with a token of its own."""
        self._others.add(stream)
        if stream.token.expires < self._following:
            self._rounds.wake()
        try:
            yield
        finally:
            self._others.discard(stream)

    async def run(self) -> None:
        """Watch until cancelled."""
        await self._rounds.run(self._look)

    async def _look(self) -> float:
        """Ends the streams whose token holds no more, and warns of those to come; returns when to look again."""
        now, due, self._due = self._clock.now(), self._due, set()
        self._warn(now)
        looked_at = [stream for stream in self._streams() if stream.key.mesh in due or stream.token.expires <= now]
        await self._turns.collect(map(self._check, looked_at))
        times = chain.from_iterable((stream.token.warned, stream.token.expires) for stream in self._streams())
        self._following = min((time for time in times if time > now), default=_NEVER)
        return min((self._following - now).total_seconds(), _LONGEST_PAUSE)

    def _streams(self) -> Iterator[Holder]:
        return chain(self._proxies, tuple(self._others))

    def _warn(self, now: datetime) -> None:
        """Names, once, the proxies whose tokens end in a while: one warning a mesh, because they may be thousands."""
        due: dict[str, list[Proxy]] = {}
        for proxy in self._proxies:
            if proxy.token.warned <= now < proxy.token.expires and proxy.key not in self._warned:
                self._warned.add(proxy.key)
                due.setdefault(proxy.key.mesh, []).append(proxy)
        for mesh, proxies in due.items():
            log.warning(
                "tokens of proxies end soon: put new ones into the files that kuma-dp reads",
                mesh=mesh,
                proxies=len(proxies),
                dataplanes=sorted(proxy.key.name for proxy in proxies)[:_NAMED],
                first_end=min(proxy.token.expires for proxy in proxies).isoformat(),
            )

    def _progressed(self, proxy: Proxy) -> None:
        """Looks again if a stream has begun whose token is to be warned of, or ends before the others."""
        if proxy.key not in self._proxies:
            self._warned.discard(proxy.key)
            return
        is_next = min(proxy.token.warned, proxy.token.expires) < self._following
        if is_next and (proxy.key not in self._warned or proxy.token.expires < self._following):
            self._rounds.wake()

    def _changed(self, meshes: frozenset[str]) -> None:
        for mesh in meshes:
            secrets = self._views.view(mesh).secrets
            before, material = self._seen.get(mesh, ({}, {}))
            if secrets is before:
                continue
            self._seen[mesh] = secrets, dataplane_tokens.keyring(mesh, secrets).material
            if self._seen[mesh][1] != material:
                self._due.add(mesh)
                self._rounds.wake()
            if not secrets:
                del self._seen[mesh]

    def _check(self, stream: Holder) -> None:
        try:
            self._check_one(stream.key, stream.credential)
        except NotValidYet:  # it was valid when the stream began, so the clock has been set back
            pass
        except Unauthenticated as error:
            stream.end(error)
