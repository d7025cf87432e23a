"""Writes the state of every proxy to the store as DataplaneInsights, in batches."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from itertools import islice

import structlog

from kuma.base.clock import Clock
from kuma.base.errors import AlreadyExists, Conflict, KumaError, NotFound, StoreCorrupt, Unavailable
from kuma.coordination.coordination import Coordination
from kuma.pki.issuer import Identity
from kuma.resources import kinds
from kuma.resources.models.dataplane_insight import (
    AdministrationInsight,
    DataplaneInsightSpec,
    MtlsInsight,
    Responses,
    Status,
    Subscription,
    TokenInsight,
    TypeResponses,
    Version,
)
from kuma.resources.models.last_contact import LastContact
from kuma.resources.resource import Key, Resource
from kuma.store.protocol import Create, Store, Update, find
from kuma.xds.envoy.resource import TypeUrl

log = structlog.get_logger(__name__)

KEPT_SUBSCRIPTIONS = 2
FLUSH_INTERVAL = 1.0
"""Seconds between two writes of the same insight."""
_BATCH = 200
"""Insights in one transaction; as many are written in an interval of which only counters have changed."""
_GATHERED = 0.3
"""Seconds without anything counted after which counters are written: thousands change when a permission does."""
_LONGEST_GATHERED = 10.0
"""Seconds after which they are written although there is always something to count."""
_AT_ONCE = 25
"""Insights that are put together before others have their turn."""
_SAYS_NOTHING = DataplaneInsightSpec()


class Counters:
    """Discovery responses of one type, as they happen. `rejection` is the reason of the last one that still stands."""

    def __init__(self) -> None:
        self.sent = self.acked = self.rejected = 0
        self.rejection = ""

    def frozen(self) -> TypeResponses:
        return _counted(self.sent, self.acked, self.rejected, self.rejection)


@lru_cache(maxsize=1024)
def _counted(sent: int, acked: int, rejected: int, rejection: str) -> TypeResponses:
    """Returns what has been counted: the same object for all of whom the same has been, which are many."""
    return TypeResponses(
        responses_sent=sent, responses_acknowledged=acked, responses_rejected=rejected, last_rejection=rejection
    )


@lru_cache(maxsize=1024)
def _in_total(sent: int, acked: int, rejected: int) -> Responses:
    """Does the same for what has been counted of all types."""
    return Responses(responses_sent=sent, responses_acknowledged=acked, responses_rejected=rejected)


class Record:
    """One proxy's insight while its stream is open; continues what earlier streams have left in the store."""

    def __init__(self, key: Key, instance: str, now: datetime, version: Version, before: DataplaneInsightSpec) -> None:
        self.key = kinds.DATAPLANE_INSIGHT.key(key.name, key.mesh)
        self.owner = key
        self.stored: Resource[DataplaneInsightSpec] | None = None
        """What was stored last, without what it said: thousands are kept."""
        self.counters: Mapping[TypeUrl, Counters] = {type_url: Counters() for type_url in TypeUrl}
        self.last_update = now
        self._instance = instance
        self._id = str(uuid.uuid4())
        self._connected = now
        self._disconnected: datetime | None = None
        self._last_contact: LastContact | None = None
        self._version = version
        self._history = _folded(tuple(_closed(s, now) for s in before.subscriptions))
        self._mtls = before.mtls
        self._past = before.past_regenerations
        self._withheld = before.withheld_inbounds
        self._unresolved = before.unresolved_names
        self.administration: AdministrationInsight | None = None
        self.token: TokenInsight | None = None
        self._serial: int | None = None
        """Of the certificate that was noted last; each stream gets one of its own."""
        self._noted: tuple[Identity, tuple[str, ...], str] | None = None
        """What was said of that one."""

    def certificate(
        self, identity: Identity | None, supported: tuple[str, ...], now: datetime, reason: str = ""
    ) -> bool:
        """Note the identity that the proxy has now and why, and counts renewals; returns whether anything is new."""
        if identity is not None and self._noted == (identity, supported, reason):
            return False
        self._noted = (identity, supported, reason) if identity is not None else None
        before = self._mtls
        if identity is None:
            self._past = before.certificate_regenerations if before else self._past
            self._mtls = None
        else:
            count = before.certificate_regenerations if before else self._past
            known = before if before and identity.serial == self._serial else None
            self._mtls = _certified(known, count, identity, supported, now, reason)
            self._past, self._serial = 0, identity.serial
        return self._mtls != before

    def inbounds(self, withheld: Iterable[str], unresolved: Iterable[str]) -> bool:
        """Notes the inbounds that are not served and the names without an answer; returns whether anything is new."""
        before = self._withheld, self._unresolved
        self._withheld, self._unresolved = tuple(withheld), tuple(unresolved)
        return (self._withheld, self._unresolved) != before

    def close(self, now: datetime, last_contact: LastContact | None) -> None:
        """Notes that the stream has ended."""
        self._disconnected, self._last_contact = now, last_contact

    @property
    def has_ended(self) -> bool:
        return self._disconnected is not None

    def spec(self) -> DataplaneInsightSpec:
        """Returns the insight as it is now."""
        by_type = {type_url.bucket: counters.frozen() for type_url, counters in self.counters.items()}
        counted = self.counters.values()
        total = _in_total(sum(c.sent for c in counted), sum(c.acked for c in counted), sum(c.rejected for c in counted))
        subscription = Subscription(
            id=self._id,
            control_plane_instance_id=self._instance,
            connect_time=self._connected,
            disconnect_time=self._disconnected,
            status=Status(last_update_time=self.last_update, total=total, **by_type),
            version=self._version,
        )
        return DataplaneInsightSpec(
            subscriptions=(*self._history, subscription),
            mtls=self._mtls,
            past_regenerations=self._past,
            administration=self.administration,
            token=self.token,
            withheld_inbounds=self._withheld,
            unresolved_names=self._unresolved,
            last_contact=self._last_contact,
        )


class Insights:
    """Writes records that have changed. One writer; a record that cannot be written is logged and tried again."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        instance: str,
        coordination: Coordination,
    ) -> None:
        """Leaves to other control planes to tell what they serve; of those that have gone, the leader tells."""
        self._coordination = coordination
        coordination.on_return(self._say_again)
        self._left = True
        """Whether there may be streams that a control plane has left open that has gone, such as this one before."""
        self._store = store
        self._clock = clock
        self._instance = instance
        self._open: dict[Key, Record] = {}
        self._changed: dict[Key, Record] = {}
        self._counted: dict[Key, tuple[Record, float]] = {}
        """Those of which nothing but counters has changed, and since when; who has waited longest first."""
        self._last_count = 0.0
        self._later: asyncio.TimerHandle | None = None
        self._writing: dict[Key, Record] = {}
        """Those that are on their way to the store, which may not have them yet."""
        self._wake = asyncio.Event()
        self._wake.set()

    async def open(self, key: Key, version: Version, *, is_new: bool = False) -> Record:
        """Begin the record of a new stream of the Dataplane called `key`.

        Of one that `is_new` nothing is looked up: insights go with their Dataplanes.
        """
        now = self._clock.now()
        insight = kinds.DATAPLANE_INSIGHT.key(key.name, key.mesh)
        newer = self._newest(insight)
        stored = None if is_new else await find(self._store, insight)
        newer = self._newest(insight) or newer  # than what was stored
        before = newer.spec() if newer else stored.spec if stored else DataplaneInsightSpec()
        record = self._open[insight] = Record(key, self._instance, now, version, before)
        record.stored = stored
        self.note(record)
        return record

    def _newest(self, insight: Key) -> Record | None:
        return self._open.get(insight) or self._changed.get(insight) or self._writing.get(insight)

    def note(self, record: Record) -> None:
        """Have `record` written soon."""
        self._changed[record.key] = record
        self._wake.set()

    def count(self, record: Record) -> None:
        """Have the counters of `record` written in its turn. What a stream counts that has been replaced is lost."""
        if self._open.get(record.key) is not record:
            return
        self._last_count = self._clock.monotonic()
        self._counted.setdefault(record.key, (record, self._last_count))
        if self._later is None:
            self._wake_after(_GATHERED)

    def _wake_after(self, seconds: float) -> None:
        self._later = asyncio.get_running_loop().call_later(seconds, self._gathered)

    def _gathered(self) -> None:
        self._later = None
        if self._due() or not self._counted:
            self._wake.set()
        else:  # they go on: it is looked again, rather than at each that is counted
            self._wake_after(_GATHERED)

    def _due(self) -> list[Key]:
        """Returns whose counters are written now: while many are counted, only of who has waited for long."""
        now = self._clock.monotonic()
        first = islice(self._counted.items(), _BATCH)
        if self._last_count + _GATHERED <= now:
            return [key for key, _ in first]
        return [key for key, (_, since) in first if since + _LONGEST_GATHERED <= now]

    def close(self, record: Record, last_contact: LastContact | None) -> None:
        """End the record of a stream, unless a newer stream of the same proxy has begun one."""
        record.close(self._clock.now(), last_contact)
        if self._open.get(record.key) is record:
            del self._open[record.key]
            self.note(record)

    async def run(self) -> None:
        """Write until cancelled, and then once more."""
        await self._coordination.known()
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                await self._close_left_open()
                await self._flush(self._due())
                await self._clock.sleep(FLUSH_INTERVAL)
        finally:
            if self._later is not None:
                self._later.cancel()
            await self._flush(list(self._counted))

    def take_stock_again(self) -> None:
        """Notes that a control plane has left: the streams that it served have ended."""
        self._left = True
        self._wake.set()

    def _say_again(self) -> None:
        """Others have noted that the streams of this control plane have ended, and were wrong."""
        for record in self._open.values():
            self.note(record)

    async def _close_left_open(self) -> None:
        """Streams that nobody serves who is there have ended, whatever the store says."""
        if not self._left or not self._coordination.leads:
            return
        self._left = False
        try:
            found = (await self._store.list(kinds.DATAPLANE_INSIGHT.name)).items
            left = [insight for insight in found if self._is_left_open(insight)]
            for start in range(0, len(left), _BATCH):
                await self._close(left[start : start + _BATCH])
        except (Unavailable, StoreCorrupt) as error:  # a full disk, say: they are shown as connected meanwhile
            log.warning("insights of streams that have ended not closed", reason=str(error))
            self.take_stock_again()

    def _is_left_open(self, insight: Resource[DataplaneInsightSpec]) -> bool:
        is_own = insight.key in self._changed or insight.key in self._open
        return insight.spec.online and not is_own and self._coordination.absence(insight.spec.server) is not None

    async def _close(self, insights: Sequence[Resource[DataplaneInsightSpec]]) -> None:
        now = self._clock.now()
        absences = dict.fromkeys(
            expected
            for server in sorted({insight.spec.server for insight in insights})
            for expected in self._coordination.absence(server) or ()
        )
        closed = [Update(insight.with_spec(_ended(insight.spec, now))) for insight in insights]
        try:
            await self._store.transact([*self._coordination.guard(), *absences, *closed])
        except Conflict:  # a proxy is back, or more has happened than is known here
            if len(insights) == 1:
                self.take_stock_again()
                return
            for insight in insights:
                await self._close([insight])

    def _is_of_others(self, insight: DataplaneInsightSpec) -> bool:
        return insight.server in self._coordination.others()

    async def _flush(self, counted: Iterable[Key]) -> None:
        """Writes all that has changed, and of what has only been counted some."""
        self._writing, self._changed = self._changed, {}
        for key in counted:
            self._writing.setdefault(key, self._counted[key][0])
        for key in self._writing:
            self._counted.pop(key, None)
        if self._counted:
            self._wake.set()
        records = list(self._writing.values())
        try:
            for start in range(0, len(records), _BATCH):
                batch = records[start : start + _BATCH]
                try:
                    await self._write(batch)
                except KumaError:
                    for record in batch:  # one of them stands in the way of the others: each alone
                        await self._write_alone(record)
                for record in batch:
                    del self._writing[record.key]
        finally:  # what this was kept from writing is written next, as when it is cancelled at the end
            self._changed, self._writing = {**self._writing, **self._changed}, {}

    async def _write(self, records: list[Record]) -> None:
        operations = list[Create | Update]()
        for record in records:
            if operations and len(operations) % _AT_ONCE == 0:
                await asyncio.sleep(0)
            operations.append(_written(record))
        for record, stored in zip(records, await self._store.transact(operations), strict=True):
            record.stored = stored.with_spec(_SAYS_NOTHING)

    async def _write_alone(self, record: Record) -> None:
        for _ in range(3):
            try:
                record.stored = await find(self._store, record.key)
                if record.has_ended and record.stored is not None and self._is_of_others(record.stored.spec):
                    return  # the proxy has moved to another control plane, which has gone on from here
                await self._write([record])
                return
            except (Conflict, AlreadyExists):
                continue
            except NotFound:
                return  # the Dataplane is gone, and its insight with it
            except Unavailable:
                break
        log.warning("insight not written", dataplane=str(record.owner))
        self._changed.setdefault(record.key, record)
        self._wake.set()


def _written(record: Record) -> Create | Update:
    if record.stored is None:
        return Create(Resource(record.key, record.spec()), record.owner)
    return Update(replace(record.stored, spec=record.spec()))


def _certified(
    known: MtlsInsight | None, count: int, identity: Identity, supported: tuple[str, ...], now: datetime, reason: str
) -> MtlsInsight:
    """Returns the insight of a certificate; `known` is the same certificate's last one, `count` the number of them."""
    return MtlsInsight(
        certificate_expiration_time=identity.not_after,
        last_certificate_regeneration=known.last_certificate_regeneration if known else now,
        certificate_regenerations=count if known else count + 1,
        issued_backend=identity.backend,
        supported_backends=supported,
        serial=f"{identity.serial:x}",
        spiffe_ids=identity.uris,
        not_before=identity.not_before,
        reason=reason,
    )


def _folded(subscriptions: tuple[Subscription, ...]) -> tuple[Subscription, ...]:
    """Returns the subscriptions that are kept; what older ones have counted is added to the oldest of them."""
    dropped, kept = subscriptions[: 1 - KEPT_SUBSCRIPTIONS], subscriptions[1 - KEPT_SUBSCRIPTIONS :]
    for old in reversed(dropped):
        kept = (kept[0].model_copy(update={"status": _sum(old.status, kept[0].status)}), *kept[1:])
    return kept


def _sum(old: Status, new: Status) -> Status:
    buckets = ("total", *(type_url.bucket for type_url in TypeUrl))
    return new.model_copy(update={name: _added(getattr(old, name), getattr(new, name)) for name in buckets})


def _added(old: Responses, new: Responses) -> Responses:
    return new.model_copy(update={name: getattr(old, name) + getattr(new, name) for name in Responses.model_fields})


def _ended(insight: DataplaneInsightSpec, now: datetime) -> DataplaneInsightSpec:
    """Returns an insight none of whose streams is open."""
    return insight.model_copy(update={"subscriptions": tuple(_closed(s, now) for s in insight.subscriptions)})


def _closed(subscription: Subscription, now: datetime) -> Subscription:
    if subscription.disconnect_time is not None:
        return subscription
    return subscription.model_copy(update={"disconnect_time": now})
