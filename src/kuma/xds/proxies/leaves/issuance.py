"""Issues certificates to proxies; counts them, and pauses for an authority that keeps failing."""

from __future__ import annotations

from datetime import datetime, timedelta

from kuma.base.audit import Audit
from kuma.base.clock import Clock
from kuma.pki import issuer
from kuma.pki.authority import Authority
from kuma.pki.issuance_failures import Breaker
from kuma.pki.issuer import Identity, IssueFailed
from kuma.xds.proxies.metrics import Metrics


class LeafIssuer:
    """The issuer as proxies use it. One mesh's failing authority holds up no other."""

    def __init__(self, clock: Clock, metrics: Metrics, audit: Audit) -> None:
        self._clock = clock
        self._metrics = metrics
        self._audit = audit
        self._breakers: dict[tuple[str, str], tuple[str, Breaker]] = {}
        """By mesh and backend, with the fingerprint of the authority whose failures it counts."""

    async def issue(
        self,
        proxy: str,
        mesh: str,
        authority: Authority,
        uris: tuple[str, ...],
        lifetime: timedelta,
        *,
        since: datetime | None,
        reason: str,
    ) -> Identity:
        """Issues an identity to a proxy; `since` is when it was issued the last one, `reason` is for the audit record.

        Raises:
            IssueFailed: the authority did not sign, what it signed is not what was asked for, or it is being spared.
        """
        breaker = self._breaker(mesh, authority)
        if not breaker.allows(self._clock.now()):
            raise IssueFailed(f'backend "{authority.name}" of mesh "{mesh}" has failed repeatedly and is being spared')
        try:
            identity = await issuer.issue(authority, uris, lifetime, self._clock.now(), since)
        except IssueFailed:
            breaker.failed(self._clock.now())
            self._metrics.issue_failures.labels(mesh, authority.name).inc()
            raise
        breaker.succeeded()
        self._metrics.issued.labels(mesh, authority.name).inc()
        self._audit.record(
            "certificate issued",
            proxy=proxy,
            serial=f"{identity.serial:x}",
            spiffeIds=uris,
            authority=authority.name,
            notAfter=identity.not_after.isoformat(),
            reason=reason,
        )
        return identity

    def clock_jumped(self, _: timedelta) -> None:
        """Spares no authority until a time that may be far away now."""
        self._breakers.clear()

    def _breaker(self, mesh: str, authority: Authority) -> Breaker:
        """Another authority under the name of one that has failed begins anew."""
        known = self._breakers.get((mesh, authority.name))
        if known is None or known[0] != authority.fingerprint:
            known = self._breakers[mesh, authority.name] = authority.fingerprint, Breaker()
        return known[1]
