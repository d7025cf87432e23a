"""Decides which calls of a Dataplane are logged, and where."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kuma.policy.matching import Rank, match
from kuma.resources import tags as tag_rules
from kuma.resources.models import target_ref
from kuma.resources.models.access_logs import AccessLogItem, Logging, MeshAccessLogSpec, Sink, TrafficLogSpec
from kuma.resources.models.dataplane import DataplaneSpec, Inbound
from kuma.resources.models.target_ref import TARGETS
from kuma.resources.resource import Resource

Sinks = tuple[Sink, ...]
_REMEMBERED = 1000
"""Dataplanes of which is known what of their calls is logged."""


class AccessLogs:
    """The access logs of one mesh. A MeshAccessLog that says something about a call wins over all TrafficLogs."""

    def __init__(
        self,
        logging: Logging | None,
        traffic_logs: Mapping[str, Resource[TrafficLogSpec]],
        mesh_access_logs: Mapping[str, Resource[MeshAccessLogSpec]],
    ) -> None:
        self._logging = logging
        self._traffic_logs = traffic_logs
        self._policies = sorted(mesh_access_logs.values(), key=_order, reverse=True)
        self._callers: dict[str, tuple[Resource[DataplaneSpec], _Caller]] = {}

    @property
    def are_none(self) -> bool:
        """Tells whether nothing is logged at all."""
        return not self._policies and (self._logging is None or not self._traffic_logs)

    def of_outbound(self, dataplane: Resource[DataplaneSpec], service: str) -> Sinks:
        """Returns where the calls of a Dataplane to a service are logged."""
        known = self._callers.get(dataplane.name)
        if known is None or known[0] is not dataplane:
            if len(self._callers) >= _REMEMBERED:
                self._callers.clear()
            known = self._callers[dataplane.name] = dataplane, self._caller(dataplane)
        return known[1].sinks(service)

    def _caller(self, dataplane: Resource[DataplaneSpec]) -> _Caller:
        """Looks at a Dataplane once: what it is does not depend on whom it calls."""
        sides = tuple(_sides(dataplane))
        policies = (p for p in self._policies if any(match(p.spec.selected, side) is not None for side in sides))
        items = tuple(
            item for policy in policies for item in reversed(policy.spec.to) if item.default.sinks is not None
        )
        logs = []
        for log in self._traffic_logs.values() if self._logging else ():
            ranks = [rank for s in log.spec.sources for side in sides if (rank := match(s.match, side)) is not None]
            if ranks:
                logs.append((max(ranks), log))
        return _Caller(self._logging, items, tuple(logs))

    def of_inbound(self, dataplane: Resource[DataplaneSpec], inbound: Inbound) -> Sinks:
        """Returns where the calls to an inbound are logged."""
        side = target_ref.facets(dataplane, inbound)
        for policy in self._policies:
            if match(policy.spec.selected, side) is None:
                continue
            said = [rule.default.sinks for rule in policy.spec.rules if not rule.matches]
            said += [item.default.sinks for item in policy.spec.from_ if item.target_ref.kind == "Mesh"]
            for sinks in reversed(said):
                if sinks is not None:
                    return sinks
        return ()


@dataclass(frozen=True, slots=True)
class _Caller:
    """Rules by which one Dataplane's calls are logged, by whom it calls."""

    logging: Logging | None
    items: tuple[AccessLogItem, ...]
    """Of MeshAccessLogs, in the order in which they are looked at."""
    logs: tuple[tuple[Rank, Resource[TrafficLogSpec]], ...]
    """The TrafficLogs that it is a source of, each with how specific that is."""

    def sinks(self, service: str) -> Sinks:
        """Returns where calls to a service are logged."""
        for item in self.items:
            if _means(item, service):
                return item.default.sinks or ()
        winner = self._winner(service)
        return self.logging.sinks(winner.conf.backend if winner.conf else "") if self.logging and winner else ()

    def _winner(self, service: str) -> TrafficLogSpec | None:
        """Returns the most specific TrafficLog of a call, the newest of several, the first by name of those."""
        called = {tag_rules.SERVICE: service}
        best: tuple[Any, ...] | None = None
        for by, log in self.logs:
            to = [rank for d in log.spec.destinations if (rank := match(d.match, called)) is not None]
            if to:
                order = (max(to), by, log.creation_time, tuple(-ord(letter) for letter in log.name))
                best = max(best, (order, log.spec), key=lambda one: one[0]) if best else (order, log.spec)
        return best[1] if best else None


def _order(policy: Resource[MeshAccessLogSpec]) -> tuple[Any, ...]:
    """Orders policies: the more specific is greater; of two that are equally so, the one whose name comes first."""
    reference = policy.spec.target_ref
    kind = TARGETS.index(reference.kind) if reference and reference.kind in TARGETS else -1
    return kind, len(policy.spec.selected), tuple(-ord(letter) for letter in policy.name)


def _means(item: AccessLogItem, service: str) -> bool:
    reference = item.target_ref
    return reference.kind == "Mesh" or (reference.kind == "MeshService" and reference.name == service)


def _sides(dataplane: Resource[DataplaneSpec]) -> Iterator[Mapping[str, str]]:
    """Returns what a Dataplane is known by as a caller: by any of its inbounds, or by its gateway."""
    networking = dataplane.spec.net
    for inbound in networking.inbound:
        yield target_ref.facets(dataplane, inbound)
    if networking.gateway is not None:
        yield target_ref.facets(dataplane, Inbound(port=0, tags=networking.gateway.tags))
