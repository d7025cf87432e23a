"""Knows where the proxies are that are connected to other control planes, by what those have stored of them."""

from __future__ import annotations

from kuma.base.errors import StoreCorrupt
from kuma.coordination.coordination import Coordination
from kuma.resources import kinds
from kuma.resources.models.dataplane_insight import AdministrationInsight, DataplaneInsightSpec
from kuma.resources.resource import Key
from kuma.store.protocol import Expect, Store, find


class ProxiesElsewhere:
    """Asks the store only if another control plane says that the proxy is connected to it."""

    def __init__(self, store: Store, coordination: Coordination) -> None:
        self._store = store
        self._coordination = coordination

    async def find(self, dataplane: Key) -> AdministrationInsight | None:
        """Returns where a proxy's stream comes from and its Envoy is administered; None if it is at no other one."""
        if not self._coordination.has(dataplane):
            return None
        insight = await find(self._store, kinds.DATAPLANE_INSIGHT.key(dataplane.name, dataplane.mesh))
        known: AdministrationInsight | None = insight.spec.administration if insight is not None else None
        return known or AdministrationInsight()

    async def departure(self, dataplane: Key) -> tuple[Expect, ...] | None:
        """Returns what a transaction expects that takes a proxy to have left; None if it is connected to another one.

        This is asked of the store, because what was heard of others may be old: they would lose an endpoint by that.

        Raises:
            StoreCorrupt: what is stored of the proxy is not understood.
        """
        key = kinds.DATAPLANE_INSIGHT.key(dataplane.name, dataplane.mesh)
        insight = await find(self._store, key)
        if insight is None:
            return (Expect(key, 0),)
        if insight.spec == DataplaneInsightSpec():  # see `kuma.store.sql.rows.blank`
            raise StoreCorrupt(
                f"{key} is not understood: the proxy may be connected elsewhere, or go on with its certificate. If it "
                "is gone, delete its Dataplane"
            )
        server = insight.spec.server if insight.spec.online else ""
        if server not in ("", self._coordination.own) and await find(self._store, kinds.INSTANCE.key(server)):
            return None
        return (Expect(key, insight.version),)
