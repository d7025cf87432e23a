"""Reads entries of access logs: who has called, where and how, and what became of it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from envoy.data.accesslog.v3 import accesslog_pb2

from kuma.base.values import addresses, printable
from kuma.pki import spiffe
from kuma.policy import decision
from kuma.policy.permissions import Permissions
from kuma.resources.models import dataplane as dataplanes
from kuma.resources.models import target_ref
from kuma.resources.models.dataplane import DataplaneSpec, Inbound
from kuma.resources.models.mesh_transition import Level
from kuma.resources.models.observed_traffic import Outcome
from kuma.resources.resource import Resource
from kuma.xds.envoy.listeners import reports
from kuma.xds.observation.decisions import Caller, Decisions, decided
from kuma.xds.observation.edges import CallerEdge

_IN_CLEAR = ("HTTP_REQUEST", "WRONG_VERSION_NUMBER")
"""What BoringSSL says of a handshake that was none."""
_NOT_VERIFIED = ("foreign_tls", "plaintext")
"""The chains of callers of whom nothing is asked."""
_LONGEST_REASON = 200
_LONGEST_URI = 600
"""Characters that are shown; those of a tag, which are the longest that we issue, have up to 520."""
_MOST_URIS = 20
"""URIs that are shown of one certificate, the services before the tags."""

_WAITED = timedelta(seconds=60)
"""How old the newest entry may be that has just come, for all that: entries wait for each other, and on the way."""
_AHEAD = timedelta(seconds=10)
_LONGEST_CONNECTION = timedelta(days=3650)


def clock_ahead(reported: Iterable[Any], now: datetime) -> int | None:
    """Returns by how many seconds the reporter's clock goes ahead, negative if it is behind; 0 if that is nothing.

    None if no entry says a time. The newest entry tells most: none can have been written later than now.
    """
    ends = [_written(one.common_properties) for one in reported if one.common_properties.HasField("start_time")]
    if not ends:
        return None
    ahead = max(ends) - now
    return 0 if -_WAITED <= ahead <= _AHEAD else round(ahead.total_seconds())


def _written(common: Any) -> datetime:
    """Returns when an entry was written, by the reporter's clock; what no calendar has is the beginning of time."""
    try:
        began: datetime = common.start_time.ToDatetime(tzinfo=UTC)
        return began + _lasted(common)
    except (ValueError, OverflowError):
        return datetime(1970, 1, 1, tzinfo=UTC)


def _lasted(common: Any) -> timedelta:
    """Returns how long a connection was open when an entry was written; nothing, if no connection can be."""
    try:
        lasted: timedelta = common.duration.ToTimedelta()
    except (ValueError, OverflowError):
        return timedelta()
    return lasted if timedelta() <= lasted < _LONGEST_CONNECTION else timedelta()


@dataclass(frozen=True, slots=True)
class Reporter:
    """A proxy that reports, and what its mesh says of its inbounds at the moment."""

    dataplane: Resource[DataplaneSpec]
    level: Level
    permissions: Permissions
    ruled_since: datetime
    """When the permissions began to hold."""
    decisions: Decisions
    now: datetime

    def connections(self, entry: Any) -> tuple[CallerEdge, int] | None:
        """Returns the caller in an entry and how many connections it stands for; None if it says nothing of a caller.

        A connection that has reached the workload over TCP was counted when it was opened.
        """
        common = entry.common_properties
        inbound = self._inbound(common.downstream_local_address.socket_address, common.tls_properties.tls_sni_hostname)
        if inbound is None:
            return None
        caller = self._caller(common, inbound)
        kind = common.access_log_type
        opened = kind == accesslog_pb2.TcpUpstreamConnected
        ended = kind == accesslog_pb2.NotSet and not common.HasField("upstream_remote_address")
        return (caller, int(opened or ended)) if caller is not None else None

    def _inbound(self, local: Any, asked_for: str) -> Inbound | None:
        """Returns the inbound at a place; of several, the one of the service that the caller has asked for."""
        networking = self.dataplane.spec.net
        here = [inbound for inbound in networking.inbound if inbound.port == local.port_value]
        exact = [one for one in here if dataplanes.listen_address(networking, one) == local.address]
        named = (one for one in exact or here if asked_for.startswith(f"{one.service}{{"))
        return next(named, next(iter(exact or here), None))

    def _caller(self, common: Any, inbound: Inbound) -> CallerEdge | None:
        chain = common.custom_tags.get(reports.CHAIN, "")
        address = addresses.written(common.downstream_direct_remote_address.socket_address.address)
        failure = printable.printable(common.downstream_transport_failure_reason[:_LONGEST_REASON])
        names = common.tls_properties.peer_certificate_properties.subject_alt_name
        uris = tuple(name.uri for name in names if name.uri)
        shown = _shown(self.dataplane.mesh, uris)
        where = inbound.service, inbound.port
        # Of a caller in plaintext, Envoy's inspector says so as if it were a failure.
        if failure and chain not in _NOT_VERIFIED:
            in_clear = any(words in failure for words in _IN_CLEAR)
            return CallerEdge(*where, "plaintext" if in_clear else "foreignTls", "refused", shown, address, failure)
        if chain.startswith("mesh_tls"):
            if not uris:
                return None  # it has gone before it has shown anything
            outcome = self._outcome(common, inbound, uris, (*where, shown))
            return CallerEdge(*where, "meshTls", outcome, shown) if outcome is not None else None
        return CallerEdge(
            *where, "foreignTls" if chain == "foreign_tls" else "plaintext", self._unchecked(common), (), address
        )

    def _outcome(self, common: Any, inbound: Inbound, uris: tuple[str, ...], caller: Caller) -> Outcome | None:
        """Returns what has become of a caller with mesh TLS: as Envoy says, or has said since it was connected.

        Otherwise it is what the permissions say of it. None if they refuse it, and are younger than the connection: it
        was opened while others held, and has ended because these do.
        """
        said = decided(common)
        if said is not None:
            self.decisions.note(caller, said, self.now)
            return said
        opened = self.now - _lasted(common)
        said = self.decisions.since(caller, opened - reports.TOGETHER_FOR)
        if said is not None:
            return said
        judged = self._verdict(inbound, uris)
        return None if judged == decision.REFUSED and opened < self.ruled_since else judged

    def _verdict(self, inbound: Inbound, uris: tuple[str, ...]) -> Outcome:
        known_by = target_ref.facets(self.dataplane, inbound, self.permissions.facets)
        return decision.verdict(self.permissions.admission(known_by), spiffe.tags(self.dataplane.mesh, uris))

    def _unchecked(self, common: Any) -> Outcome:
        if common.response_flags.no_cluster_found:
            return "refused"
        return "allowed" if self.level >= Level.ENCRYPTING else "unchecked"


def _shown(mesh: str, uris: tuple[str, ...]) -> tuple[str, ...]:
    """Returns as much of a certificate's URIs as is kept; what becomes of the caller was decided by all of them."""
    first = sorted(uris, key=lambda uri: (not uri.startswith(spiffe.prefix(mesh)), uri))[:_MOST_URIS]
    return tuple(sorted(printable.printable(uri[:_LONGEST_URI]) for uri in first))
