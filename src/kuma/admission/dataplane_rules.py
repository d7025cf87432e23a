"""Rules for changes of Dataplanes: inbounds lead to workloads of the proxy's own machine, and to nothing else there.

Whoever connects to an inbound arrives at the workload from the loopback. If that workload were the control plane's own
API, the caller could be its administrator; if it were an Envoy's administration, the caller would command that proxy.
`kuma.xds.proxies.inbound_review` judges stored Dataplanes again by the same decision.
"""

from __future__ import annotations

from collections.abc import Callable

from kuma.base.errors import InvalidResource
from kuma.policy import workloads
from kuma.policy.workloads import Surroundings
from kuma.resources.dataplane import DataplaneSpec
from kuma.resources.resource import Resource
from kuma.store.manager import Decision
from kuma.store.protocol import Store

SurroundingsOf = Callable[[Resource[DataplaneSpec]], Surroundings]
"""Tells what is known of the machine of a Dataplane."""


class DataplaneRules:
    """Refuses inbounds that lead elsewhere, as far as that is known now."""

    def __init__(self, surroundings_of: SurroundingsOf) -> None:
        self._surroundings_of = surroundings_of

    async def on_put(self, old: Resource[DataplaneSpec] | None, new: Resource[DataplaneSpec], store: Store) -> Decision:
        found = tuple(workloads.refusals(new.spec.net, self._surroundings_of(new)))
        if found:
            raise InvalidResource(tuple(violation for _, violation in found))
        return Decision()

    async def on_delete(self, old: Resource[DataplaneSpec], store: Store) -> Decision:
        return Decision()
