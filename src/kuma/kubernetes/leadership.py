"""Which of several control planes leads: a Lease, as Kubernetes' own components have one.

Two never lead at once: who leads stops before others may begin. Its time runs from when it asked for the lease, not
from when it heard that it has it; that of the others, from when they have seen it renewed, which is later.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import structlog

from kuma.base import aio
from kuma.base.clock import Clock
from kuma.base.errors import KumaError, Unavailable
from kuma.kubernetes.api.client import ApiClient, ApiError, Object

log = structlog.get_logger(__name__)

LEASE = "cp-leader-lease"


class LeadershipLost(KumaError):
    """Another control plane may lead now."""


class Lease:
    """A Lease in the system's namespace. Times of others are not compared with ours: what counts is that they change.

    `duration`, `deadline` and `period` are seconds: how long a lease holds, how long a leader goes on without having
    renewed it, and how often it does. What is between the first two is for what has to end.
    """

    def __init__(
        self,
        client: ApiClient,
        namespace: str,
        identity: str,
        clock: Clock,
        *,
        duration: float = 15.0,
        deadline: float = 10.0,
        period: float = 2.0,
    ) -> None:
        self._client = client
        self._collection = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._path = f"{self._collection}/{LEASE}"
        self._identity = identity
        self._clock = clock
        self._duration, self._deadline, self._period = duration, deadline, period
        self._renewed = clock.monotonic()

    async def acquire(self) -> None:
        """Return once this control plane leads."""
        seen, since = "", self._clock.monotonic()
        while True:
            try:
                found = await self._find()
                state = _state(found) if found else ""
                if state != seen:
                    seen, since = state, self._clock.monotonic()
                if self._is_free(found) or self._clock.monotonic() - since > self._duration:
                    await self._renew(found)
                    if self._left() > 0:
                        log.info("this control plane leads", identity=self._identity)
                        return
            except (ApiError, Unavailable) as error:
                log.info("not leading", reason=str(error))
            await self._clock.sleep(self._period)

    async def keep(self) -> None:
        """Renew the lease until cancelled.

        Raises:
            LeadershipLost: it could not be renewed in time, or somebody else has it.
        """
        renewing = aio.spawn(self._renew_again(), name="renewal of the lease")
        try:
            while (left := self._left()) > 0:
                ending = aio.spawn(self._clock.sleep(left), name="end of the lease")
                await asyncio.wait({renewing, ending}, return_when=asyncio.FIRST_COMPLETED)
                await aio.stop([ending])
                if renewing.done():
                    renewing.result()
            raise LeadershipLost("the lease could not be renewed in time")
        finally:
            await aio.stop([renewing])

    async def release(self) -> None:
        """Let another one lead at once."""
        try:
            found = await self._find()
            if found is not None and found["spec"].get("holderIdentity") == self._identity:
                await self._client.replace(self._path, {**found, "spec": {**found["spec"], "holderIdentity": ""}})
        except (ApiError, Unavailable) as error:
            log.warning("the lease is not released; it ends by itself", reason=str(error))

    async def _renew_again(self) -> None:
        while True:
            await self._clock.sleep(self._period)
            try:
                found = await self._find()
                if found is None or found["spec"].get("holderIdentity") != self._identity:
                    raise LeadershipLost("another control plane leads now")
                await self._renew(found)
            except (ApiError, Unavailable) as error:
                log.warning("the lease is not renewed", reason=str(error), seconds_left=round(self._left(), 1))

    async def _renew(self, found: Object | None) -> None:
        begun = self._clock.monotonic()
        await self._write(found)
        self._renewed = begun

    def _left(self) -> float:
        """Seconds for which this control plane may go on leading."""
        return self._renewed + self._deadline - self._clock.monotonic()

    def _is_free(self, found: Object | None) -> bool:
        return found is None or (found["spec"].get("holderIdentity") or self._identity) == self._identity

    async def _find(self) -> Object | None:
        try:
            return await self._client.get(self._path)
        except ApiError as error:
            if error.code == 404:
                return None
            raise

    async def _write(self, found: Object | None) -> None:
        now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        spec: dict[str, Any] = dict(found["spec"]) if found else {}
        if spec.get("holderIdentity") != self._identity:
            spec |= {"acquireTime": now, "leaseTransitions": int(spec.get("leaseTransitions") or 0) + bool(found)}
        spec |= {"holderIdentity": self._identity, "leaseDurationSeconds": round(self._duration), "renewTime": now}
        body = {**(found or {"metadata": {"name": LEASE}}), "spec": spec}
        body |= {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}
        if found is None:
            await self._client.create(self._collection, body)
        else:
            await self._client.replace(self._path, body)


def _state(found: Object) -> str:
    return f"{found['spec'].get('holderIdentity')} {found['spec'].get('renewTime')}"
