"""Says that this control plane is there, takes the lead if nobody has it, and clears up behind who is gone."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import replace

import structlog

from kuma.base.clock import Clock
from kuma.base.errors import AlreadyExists, Conflict, KumaError, NotFound, Unavailable
from kuma.base.rounds import Rounds
from kuma.coordination.peers import LEADER, Peers
from kuma.resources import kinds
from kuma.resources.models.coordination import InstanceSpec, LeaseSpec
from kuma.resources.resource import Resource
from kuma.store.protocol import Create, Delete, Expect, Operation, Store, Update, find

log = structlog.get_logger(__name__)

BEAT = 3.0
"""Seconds between two words; three that are missed are less than `peers.EXPIRY`."""


class Heartbeat:
    """One transaction every few seconds."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        peers: Peers,
        describe: Callable[[], InstanceSpec],
        is_known: Callable[[], Awaitable[object]],
    ) -> None:
        """The first word waits until `is_known` is done: there is all that `describe` tells, then."""
        self._store = store
        self._peers = peers
        self._describe = describe
        self._is_known = is_known
        self._own: Resource[InstanceSpec] | None = None
        self._was_missed = False
        """Whether what is stored of this instance is not what it has written: others may have cleared up behind it."""
        self._rounds = Rounds(clock, "heartbeat")
        peers.on_change(self._rounds.wake)

    async def run(self) -> None:
        """Beat until cancelled, and take leave then."""
        await self._is_known()
        try:
            await self._rounds.run(self._beat)
        finally:
            await self._leave()

    async def _beat(self) -> float:
        self._peers.look()
        with contextlib.suppress(Unavailable):  # which has been logged; the others see that this one says nothing
            if await self._say():
                await self._peers.known()
                with contextlib.suppress(Conflict, AlreadyExists, NotFound):  # somebody was faster: as it is next time
                    await self._lead()
                    await self._clear_up()
        return BEAT

    async def _say(self) -> bool:
        """Say that this instance is there; False if what is stored of it has to be looked at first."""
        resource = Resource(kinds.INSTANCE.key(self._peers.own), self._describe())
        own = self._own
        write: Operation = Update(replace(own, spec=resource.spec)) if own else Create(resource)
        try:
            (self._own,) = await self._store.transact([write])
        except (Conflict, AlreadyExists, NotFound):
            self._was_missed = True
            self._own = await find(self._store, resource.key)
            self._rounds.wake()
            return False
        self._peers.said()
        if self._was_missed:  # not before it has said so: from now on nobody clears up behind it
            self._was_missed = False
            self._peers.returned()
        return True

    async def _lead(self) -> None:
        """Take the lead if its holder has gone; it is expected not to have said anything meanwhile."""
        lease, mine = self._peers.lease, LeaseSpec(holder=self._peers.own)
        if lease is None:
            await self._store.transact([Create(Resource(LEADER, mine))])
        elif lease.spec.holder != self._peers.own and lease.spec.holder not in self._peers.others():
            holder = lease.spec.holder
            silent = Expect(kinds.INSTANCE.key(holder), self._peers.version_of(holder))
            await self._store.transact([silent, Update(replace(lease, spec=mine))])
        else:
            return
        log.info("this control plane leads", instance=self._peers.own)

    async def _clear_up(self) -> None:
        """Remove what is stored of those that have gone, if they have said nothing meanwhile."""
        gone = self._peers.gone() if self._peers.leads else ()
        if not gone:
            return
        versions = {kinds.INSTANCE.key(name): self._peers.version_of(name) for name in gone}
        stored = [
            *(key for key, version in versions.items() if version),
            *(row for name in gone for row in self._peers.rows_of(name)),
        ]
        silent = [Expect(key, version) for key, version in versions.items()]
        await self._store.transact([*self._peers.guard(), *silent, *map(Delete, stored)])

    async def _leave(self) -> None:
        """Have the others know at once."""
        if self._own is None:
            return
        try:
            await self._store.transact([Delete(self._own.key)])
        except KumaError as error:
            log.warning("the other control planes will notice later that this one has left", reason=str(error))
