"""Notices that this control plane alone is cut off from the store, while others can use it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import structlog

from kuma.base.clock import Clock
from kuma.base.rounds import Rounds
from kuma.coordination.heartbeat import BEAT
from kuma.coordination.peers import EXPIRY, Peers

log = structlog.get_logger(__name__)

Ask = Callable[[Sequence[str]], Awaitable[bool]]
"""Addresses of others -> whether one of them says that it can use the store."""
_ROUNDS = 3
"""How often in a row others have to say so, or no more: of a store that is lost or back for all, some know earlier."""


class Isolation:
    """Whoever is cut off has its proxies go to the others before the leader takes them to be gone.

    While nobody can use the store, proxies stay: nobody else could serve them, and here they get certificates.
    """

    def __init__(self, clock: Clock, peers: Peers, ask: Ask, tell: Callable[[bool], None]) -> None:
        """`tell` is told that we are cut off, and that we are not any more."""
        self._peers = peers
        self._ask = ask
        self._tell = tell
        self._rounds = Rounds(clock, "isolation")
        self.is_cut_off = False
        """Whether we are, and others are not."""
        self._contrary = 0
        """How often in a row what others say was contrary to that."""

    async def run(self) -> None:
        """Look until cancelled."""
        await self._rounds.run(self._look)

    async def _look(self) -> float:
        if self._peers.silent_for() <= EXPIRY:
            self._contrary = 0
            self._become(False)
        elif await self._ask(self._peers.addresses()) is self.is_cut_off:
            self._contrary = 0
        else:
            self._contrary += 1
            if self._contrary == _ROUNDS:
                self._become(not self.is_cut_off)
        return BEAT

    def _become(self, is_cut_off: bool) -> None:
        if is_cut_off is self.is_cut_off:
            return
        self.is_cut_off, self._contrary = is_cut_off, 0
        if is_cut_off:
            log.error("this control plane alone is cut off from the store: its proxies are to go to the others")
        else:
            log.warning("this control plane is not cut off from the store any more, or all are")
        self._tell(is_cut_off)
