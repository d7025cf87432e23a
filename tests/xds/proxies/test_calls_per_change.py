"""What a changed permission costs for each proxy that follows it, in calls: the same on every machine, busy or not."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from types import FrameType

import kuma
from kuma.xds.envoy.listeners import filters, rbac
from kuma.xds.envoy.resource import TypeUrl
from kuma.xds.envoy.services import serving_label
from kuma.xds.proxies.insights import Record
from tests.fakes.control_plane import ALLOW_ALL, MTLS, Running, dataplane, running

PROXIES, SERVICES = 40, 4
MOST = 1200
"""Calls of our own functions for each, from the request to the last acknowledgement of its listener and its routes.

About twice as many as there are.
"""
_OURS = str(Path(kuma.__file__).parent)


async def test_a_changed_permission_costs_each_proxy_few_calls(tmp_path: Path) -> None:
    calls = Counter[object]()

    def count(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(_OURS):
            calls[frame.f_code] += 1

    async with running(tmp_path) as cp:
        await cp.apply(MTLS, ALLOW_ALL)
        for number in range(PROXIES):
            called = tuple(f"s{(number + more) % SERVICES}" for more in (1, 2))
            await cp.proxy(dataplane(f"p{number}", f"s{number % SERVICES}", port=1000 + number, calls=called))
        await cp.until(lambda: _have_arrived(cp))
        records = [proxy.record for proxy in cp.parts.proxies]
        before = _acked(records)
        sys.setprofile(count)
        try:
            await cp.apply(ALLOW_ALL.replace("'*'", "s1", 1))
            await cp.until(lambda: _have_followed(cp))
        finally:
            sys.setprofile(None)
    assert _acked(records) - before == 2 * PROXIES
    assert calls[rbac.access.__code__] <= 2 * SERVICES  # once for all inbounds of a service
    assert not calls[filters.http.__code__]  # they are the same whoever is admitted
    assert calls.total() < MOST * PROXIES, calls.most_common(20)


def _have_arrived(cp: Running) -> bool:
    """Tells whether callers are sent to all of them: until then each is told of others that have come."""
    dataplanes = cp.parts.views.view("default").dataplanes.values()
    return _have_followed(cp) and all(map(serving_label.is_serving, dataplanes))


def _have_followed(cp: Running) -> bool:
    return len(cp.parts.proxies) == PROXIES and all(proxy.converged for proxy in cp.parts.proxies)


def _acked(records: list[Record]) -> int:
    return sum(record.counters[kind].acked for record in records for kind in (TypeUrl.LISTENER, TypeUrl.ROUTES))
