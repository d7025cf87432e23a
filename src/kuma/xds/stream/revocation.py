"""Ends streams whose token no longer holds: when the Secrets of the mesh change, and on expiry.

Warns of an expiry long before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any, Protocol

import structlog

from kuma.base.clock import Clock
from kuma.base.errors import KumaError, Unauthenticated
from kuma.base.rounds import Rounds
from kuma.resources.resource import Key
from kuma.store.views import Views
from kuma.tokens.dataplane_tokens import DataplaneClaims
from kuma.tokens.signing_keys import NotValidYet
from kuma.xds.proxies.proxy import Proxies, Proxy

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
    """Looks at the tokens of a mesh's streams when its Secrets have changed, and at each when it expires."""

    def __init__(self, views: Views, proxies: Proxies, clock: Clock, check: Check) -> None:
        self._views = views
        self._proxies = proxies
        self._clock = clock
        self._check_one = check
        self._others: set[Holder] = set()
        """Streams of proxies beside those of discovery."""
        self._seen: dict[str, Any] = {}
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
        self._check([stream for stream in self._streams() if stream.key.name == name])

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
        """Ends the streams whose token has expired, and warns of those to come; returns when to look again."""
        now = self._clock.now()
        self._warn(now)
        self._check(stream for stream in self._streams() if stream.token.expires <= now)
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
            if secrets is not self._seen.get(mesh):
                self._seen[mesh] = secrets
                self._check(stream for stream in self._streams() if stream.key.mesh == mesh)

    def _check(self, streams: Iterable[Holder]) -> None:
        for stream in streams:
            try:
                self._check_one(stream.key, stream.credential)
            except NotValidYet:  # it was valid when the stream began, so the clock has been set back
                continue
            except Unauthenticated as error:
                stream.end(error)
