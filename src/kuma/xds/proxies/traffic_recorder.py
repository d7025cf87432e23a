"""Keeps what proxies report of their callers: counts in memory, and writes to the store in batches.

Several control planes may hear of the same proxy: each keeps what it has heard since it has written last, and adds that
to what is stored. What is new is written within a minute; that somebody has called again, every ten.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from prometheus_client import Counter

from kuma.base.clock import Clock
from kuma.base.errors import AlreadyExists, Conflict, KumaError, NotFound, Unavailable
from kuma.resources import kinds
from kuma.resources.models.observed_traffic import ObservedTrafficSpec
from kuma.resources.resource import Key, Resource
from kuma.store.protocol import Create, Operation, Store, Update, find
from kuma.xds.observation.edges import CallerEdge, Edges, caller_of, together

log = structlog.get_logger(__name__)

_ROUND = 60.0
"""Seconds between two rounds of writing."""
_OTHERS = timedelta(minutes=10)
"""How long counts of callers that are known may wait."""
_BATCH = 200
_ATTEMPTS = 3


@dataclass(slots=True)
class _Heard:
    """News of one Dataplane since it was written last; `is_news` if it has callers that are new."""

    edges: Edges
    since: datetime
    is_news: bool = True


class TrafficRecorder:
    """Counts the callers of Dataplanes, by their keys."""

    def __init__(self, store: Store, clock: Clock, connections: Counter) -> None:
        self._store = store
        self._clock = clock
        self._connections = connections
        self._heard: dict[Key, _Heard] = {}
        self._reporting: set[Key] = set()
        """Dataplanes whose proxies report here."""
        self._known: dict[Key, set[CallerEdge]] = {}
        """By those, the callers that have been written, so that they are no news."""
        self._writing: dict[Key, ObservedTrafficSpec] = {}

    def began(self, dataplane: Key) -> None:
        """Notes that the proxy of a Dataplane reports from now on, if it does not already."""
        self._reporting.add(dataplane)
        if dataplane not in self._known:
            self._of(dataplane)

    def ended(self, dataplane: Key) -> None:
        """Notes that the proxy of a Dataplane has left."""
        self._reporting.discard(dataplane)
        self._known.pop(dataplane, None)

    @property
    def remembered(self) -> frozenset[Key]:
        """The Dataplanes of which written callers are remembered."""
        return frozenset(self._known)

    def note(self, dataplane: Key, caller: CallerEdge, connections: int) -> None:
        """Counts connections, none if it is only known that one goes on."""
        heard = self._of(dataplane)
        self._connections.labels(dataplane.mesh, caller.how, caller.outcome).inc(connections)
        heard.edges.note(caller, self._clock.now(), connections)
        heard.is_news = heard.is_news or caller not in self._known.get(dataplane, ())

    def clock(self, dataplane: Key, ahead_seconds: int) -> None:
        """Notes by how many seconds the clock of a proxy goes ahead."""
        self._of(dataplane).edges.clock_ahead_seconds = ahead_seconds

    def _of(self, dataplane: Key) -> _Heard:
        heard = self._heard.get(dataplane)
        if heard is None:
            now, known = self._clock.now(), dataplane in self._known
            heard = self._heard[dataplane] = _Heard(Edges(now), now, is_news=not known)
        return heard

    def unwritten(self, mesh: str) -> Mapping[str, ObservedTrafficSpec]:
        """Returns what is not in the store yet, by the names of Dataplanes."""
        now = self._clock.now()
        heard = {key: known.edges.spec(now) for key, known in self._heard.items() if key.mesh == mesh}
        found = {key.name: spec for key, spec in self._writing.items() if key.mesh == mesh}
        for key, spec in heard.items():
            found[key.name] = together((spec, found[key.name]), now) if key.name in found else spec
        return found

    async def run(self) -> None:
        """Write until cancelled, and then once more."""
        try:
            while True:
                await self._clock.sleep(_ROUND)
                now = self._clock.now()
                await self._write(
                    [k for k, heard in self._heard.items() if heard.is_news or now - heard.since >= _OTHERS]
                )
        finally:
            await self._write(list(self._heard))

    async def _write(self, keys: list[Key]) -> None:
        for start in range(0, len(keys), _BATCH):
            now, batch = self._clock.now(), keys[start : start + _BATCH]
            self._writing = {key: self._heard.pop(key).edges.spec(now) for key in batch if key in self._heard}
            try:
                await self._store_together(self._writing)
            except KumaError:  # one of them stands in the way of the others: each alone
                for key, spec in list(self._writing.items()):
                    await self._store_alone(key, spec)
            self._writing = {}

    async def _store_together(self, specs: Mapping[Key, ObservedTrafficSpec]) -> None:
        merged = {key: await self._merged(key, spec) for key, spec in specs.items()}
        await self._store.transact([operation for operation, _ in merged.values() if operation is not None])
        for key, (_, whole) in merged.items():
            if key in self._reporting:
                self._known[key] = {caller_of(edge) for edge in whole.edges}
            self._writing.pop(key, None)

    async def _store_alone(self, key: Key, spec: ObservedTrafficSpec) -> None:
        for _ in range(_ATTEMPTS):
            try:
                await self._store_together({key: spec})
                return
            except (Conflict, AlreadyExists):
                continue
            except NotFound:
                self._writing.pop(key, None)  # the Dataplane is gone, and what was known of it
                return
            except Unavailable:
                break
        log.warning("observed traffic not written", dataplane=str(key))
        self._of(key).edges.add(spec)
        self._writing.pop(key, None)

    async def _merged(self, key: Key, spec: ObservedTrafficSpec) -> tuple[Operation | None, ObservedTrafficSpec]:
        """Returns what is to be stored, and how; nothing is to be done if nothing is new."""
        own = kinds.OBSERVED_TRAFFIC.key(key.name, key.mesh)
        stored = await find(self._store, own)
        if stored is None:
            return Create(Resource(own, spec), key), spec
        whole = together((stored.spec, spec), self._clock.now())
        return (Update(stored.with_spec(whole)) if whole != stored.spec else None), whole
