"""Ends streams whose token or membership no longer holds: when the mesh or its Secrets change, and on expiry."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from kuma.base.clock import Clock
from kuma.base.errors import AccessDenied, Unauthenticated
from kuma.base.rounds import Rounds
from kuma.resources.resource import Key
from kuma.store.views import Views
from kuma.tokens.signing_keys import NotValidYet
from kuma.xds.proxies.proxy import Proxies, Proxy

_LONGEST_PAUSE = 600.0
"""Seconds; a machine that slept notices within this time."""
_NEVER = datetime.max.replace(tzinfo=UTC)

Check = Callable[[Key, str], None]
"""Dataplane and token; raises `Unauthenticated` or `AccessDenied` if the stream may not go on."""


class TokenRevocation:
    """Looks at the tokens of a mesh's proxies when its Secrets have changed, and at each when it expires."""

    def __init__(self, views: Views, proxies: Proxies, clock: Clock, check: Check) -> None:
        self._views = views
        self._proxies = proxies
        self._clock = clock
        self._check_one = check
        self._seen: dict[str, tuple[Any, Any]] = {}
        self._known: set[Key] = set()
        self._rounds = Rounds(clock, "expiry of tokens")
        views.on_change(self._changed)
        proxies.on_progress(self._progressed)

    def clock_jumped(self, _: timedelta) -> None:
        """Looks again: other tokens may have expired by now."""
        self._rounds.wake()

    async def run(self) -> None:
        """Watch until cancelled."""
        await self._rounds.run(self._end_expired)

    async def _end_expired(self) -> float:
        """End the streams whose token has expired; returns the seconds until the next one will."""
        now = self._clock.now()
        self._check(proxy for proxy in self._proxies if proxy.token.expires <= now)
        following = min((p.token.expires for p in self._proxies if p.token.expires > now), default=_NEVER)
        return min((following - now).total_seconds(), _LONGEST_PAUSE)

    def _progressed(self, proxy: Proxy) -> None:
        """Looks again, because a stream that has just begun may be the next one to expire."""
        if proxy.key in self._proxies and proxy.key not in self._known:
            self._known.add(proxy.key)
            self._rounds.wake()
        elif proxy.key not in self._proxies:
            self._known.discard(proxy.key)

    def _changed(self, meshes: frozenset[str]) -> None:
        for mesh in meshes:
            view = self._views.view(mesh)
            decisive = (view.secrets, view.mesh)
            before = self._seen.get(mesh, (None, None))
            if decisive[0] is not before[0] or decisive[1] is not before[1]:
                self._seen[mesh] = decisive
                self._check(proxy for proxy in self._proxies if proxy.key.mesh == mesh)

    def _check(self, proxies: Iterable[Proxy]) -> None:
        for proxy in proxies:
            try:
                self._check_one(proxy.key, proxy.credential)
            except NotValidYet:  # it was valid when the stream began, so the clock has been set back
                continue
            except (Unauthenticated, AccessDenied) as error:
                proxy.end(error)
