"""Reads what Envoy itself has decided about a caller from entries of access logs, and remembers it. Pure."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from kuma.resources.models.observed_traffic import Outcome
from kuma.xds.envoy.listeners import reports

_DENIED = "denied"
_ENDED_BY_RBAC = "rbac_access_denied"
_MOST = 512
Caller = tuple[str, int, tuple[str, ...]]
"""The service and the port that are called, and the URIs that the caller shows."""


def decided(common: Any) -> Outcome | None:
    """Returns what an Envoy says that it has decided about a caller with mesh TLS; None if it says nothing of it.

    Over HTTP RBAC decides about each request. Over TCP a caller whom nothing admits is led to no cluster, and what RBAC
    finds at the first byte is known when the connection ends.
    """
    if common.response_flags.no_cluster_found:
        return "refused"
    shadow, ended, http = (*common.custom_tags.get(reports.DECIDED, "").split("\n", 2), "", "", "")[:3]
    if ended.startswith(_ENDED_BY_RBAC):
        return "refused"
    if shadow == _DENIED:
        return "wouldBeRefused"
    return _of_request(http)


def _of_request(text: str) -> Outcome | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None  # there was no request, or it has come to no decision
    result = found.get("enforced_engine_result") if isinstance(found, dict) else None
    if result == _DENIED:
        return "refused"
    if result is None:
        return None
    return "wouldBeRefused" if found.get("shadow_engine_result") == _DENIED else "allowed"


class Decisions:
    """The last decision about each caller of a proxy, of those that were decided about last."""

    def __init__(self) -> None:
        self._known: dict[Caller, tuple[Outcome, datetime]] = {}

    def note(self, caller: Caller, outcome: Outcome, now: datetime) -> None:
        """Remembers a decision."""
        self._known.pop(caller, None)
        self._known[caller] = outcome, now
        if len(self._known) > _MOST:
            del self._known[next(iter(self._known))]

    def since(self, caller: Caller, start: datetime) -> Outcome | None:
        """Returns the last decision about a caller, if it was told after `start`."""
        outcome, told = self._known.get(caller, (None, start))
        return outcome if told >= start else None
