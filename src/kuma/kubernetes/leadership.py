"""Which of several control planes leads: a Lease, as Kubernetes' own components have one.

Two never lead at once: who leads changes nothing more before others may begin. Its time runs from when it asked for the
lease, not from when it heard that it has it; that of the others, from when they have seen it renewed, which is later.

While the API server is away nobody can lead, and nobody needs to: who has led goes on serving what it knows. Once the
server answers, it leads again, if no other one does.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import structlog

import kuma
from kuma.base.clock import Clock
from kuma.base.errors import KumaError, Unavailable
from kuma.kubernetes.api.client import ApiClient, ApiError, Object

log = structlog.get_logger(__name__)

LEASE = "cp-leader-lease"
_VERSION = "kuma.io/leader-version"
"""Annotation of the Lease: the version of who wrote it, and its identity. An older version leaves it as it stands."""


class LeadershipLost(KumaError):
    """Another control plane leads now, or has perhaps done so for long."""


class Lease:
    """A Lease in the system's namespace. Times of others are not compared with ours: what counts is that they change.

    `duration`, `deadline`, `period` and `patience` are seconds: how long a lease holds, how long a leader changes
    things without having renewed it, how often it does, and how long it goes on serving when it cannot. What is
    between the first two is for what is under way.
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
        patience: float = 300.0,
    ) -> None:
        self._client = client
        self._path = path(namespace)
        self._collection = self._path.removesuffix(f"/{LEASE}")
        self._identity = identity
        self._clock = clock
        self._duration, self._deadline, self._period, self._patience = duration, deadline, period, patience
        self._renewed = clock.monotonic()
        self._has_led = False

    async def acquire(self) -> None:
        """Return once this control plane leads."""
        seen, since = "", self._clock.monotonic()
        while True:
            try:
                found = await self._client.find(self._path)
                state = _state(found) if found else ""
                if state != seen:
                    seen, since = state, self._clock.monotonic()
                if self._is_free(found) or self._clock.monotonic() - since > self._duration:
                    await self._renew(found)
                    if self._left() > 0:
                        log.info("this control plane leads", identity=self._identity)
                        self._has_led = True
                        return
            except (ApiError, Unavailable) as error:
                log.info("not leading", reason=str(error))
            await self._clock.sleep(self._period)

    @property
    def leads(self) -> bool:
        """Tells whether this control plane leads, as far as it can know."""
        return self._has_led and self._left() > 0

    def check(self) -> None:
        """Check that what a leader changes may be changed by this control plane: that it has not led, or leads still.

        Raises:
            Unavailable: another control plane may lead meanwhile.
        """
        if self._has_led and self._left() <= 0:
            raise Unavailable("the lease of this control plane could not be renewed: another one may lead now")

    async def keep(self) -> None:
        """Renew the lease until cancelled; while the API server does not answer, wait for it.

        Raises:
            LeadershipLost: somebody else has it, or for too long nobody could say who.
        """
        while True:
            await self._clock.sleep(self._period)
            try:
                found = await self._client.find(self._path)
                if found is None or found["spec"].get("holderIdentity") != self._identity:
                    raise LeadershipLost("another control plane leads now")
                await self._renew(found)
            except (ApiError, Unavailable) as error:
                what = "it goes on leading" if self._left() > 0 else "it goes on serving, and changes nothing"
                log.warning("the lease is not renewed", until_then=what, reason=str(error))
                if self._clock.monotonic() - self._renewed >= self._patience:
                    raise LeadershipLost(f"for {self._patience:.0f} seconds the lease could not be renewed") from None

    async def release(self) -> None:
        """Let another one lead at once."""
        try:
            found = await self._client.find(self._path)
            if found is not None and found["spec"].get("holderIdentity") == self._identity:
                await self._client.replace(self._path, {**found, "spec": {**found["spec"], "holderIdentity": ""}})
        except (ApiError, Unavailable) as error:
            log.warning("the lease is not released; it ends by itself", reason=str(error))

    async def _renew(self, found: Object | None) -> None:
        begun = self._clock.monotonic()
        await self._write(found)
        self._renewed = begun

    def _left(self) -> float:
        """Seconds for which this control plane may go on changing things."""
        return self._renewed + self._deadline - self._clock.monotonic()

    def _is_free(self, found: Object | None) -> bool:
        return found is None or (found["spec"].get("holderIdentity") or self._identity) == self._identity

    async def _write(self, found: Object | None) -> None:
        now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        spec: dict[str, Any] = dict(found["spec"]) if found else {}
        if spec.get("holderIdentity") != self._identity:
            spec |= {"acquireTime": now, "leaseTransitions": int(spec.get("leaseTransitions") or 0) + bool(found)}
        spec |= {"holderIdentity": self._identity, "leaseDurationSeconds": round(self._duration), "renewTime": now}
        metadata: dict[str, Any] = dict(found["metadata"]) if found else {"name": LEASE}
        said = {_VERSION: f"{kuma.__version__} {self._identity}"}
        metadata["annotations"] = {**(metadata.get("annotations") or {}), **said}
        body = {**(found or {}), "metadata": metadata, "spec": spec}
        body |= {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}
        if found is None:
            await self._client.create(self._collection, body)
        else:
            await self._client.replace(self._path, body)


def path(namespace: str) -> str:
    """Returns the path of the Lease of the control planes in a namespace."""
    return f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{LEASE}"


def leader(found: Object | None) -> tuple[str, str]:
    """Returns who has a Lease, and of which version it is: empty if nobody has it, `unknown` if it does not say."""
    identity = str(((found or {}).get("spec") or {}).get("holderIdentity") or "")
    if not identity or found is None:
        return "", ""
    version, _, by = str((found["metadata"].get("annotations") or {}).get(_VERSION, "")).partition(" ")
    return identity, version if by == identity else "unknown"


def _state(found: Object) -> str:
    return f"{found['spec'].get('holderIdentity')} {found['spec'].get('renewTime')}"
