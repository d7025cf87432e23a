"""Rules for changes of Dataplanes: inbounds lead to workloads of the proxy's own machine, and to nothing else there.

Whoever connects to an inbound arrives at the workload from the loopback. If that workload were the control plane's own
API, the caller could be its administrator; if it were an Envoy's administration, the caller would command that proxy.
`kuma.xds.proxies.inbound_review` judges stored Dataplanes again by the same decision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from kuma.admission.permission_rules import all_of
from kuma.base.errors import InvalidResource, Violation
from kuma.base.turns import Turns
from kuma.policy import workloads
from kuma.policy.edited_dataplane import EditedDataplane
from kuma.policy.permissions import Permissions
from kuma.policy.workloads import Surroundings
from kuma.resources import kinds
from kuma.resources import tags as tag_rules
from kuma.resources.models.dataplane import DataplaneSpec, Networking
from kuma.resources.models.mesh import weakening_is_refused
from kuma.resources.resource import Resource
from kuma.store.manager import Decision
from kuma.store.protocol import Expect, Operation, Store, find

SurroundingsOf = Callable[[Resource[DataplaneSpec]], Surroundings]
"""Tells what is known of the machine of a Dataplane."""
PermissionsOf = Callable[[str, Store], Permissions]
"""Returns the permissions of a mesh."""
_NAMED = 5
"""How many weakenings of one Dataplane are told."""
_HTTP_PORTS = frozenset({80, 8000, 8008, 8080, 8081, 8088, 8888})
"""IANA's for HTTP, and the ones beside them that servers take by default."""


class DataplaneRules:
    """Refuses inbounds that lead elsewhere, as far as that is known now."""

    def __init__(
        self, surroundings_of: SurroundingsOf, permissions_of: PermissionsOf, turns: Turns, *, guarded: bool = False
    ) -> None:
        self._surroundings_of = surroundings_of
        self._permissions_of = permissions_of
        self._turns = turns
        self._guarded = guarded
        """Whether meshes that do not say so refuse what weakens them."""

    async def on_put(self, old: Resource[DataplaneSpec] | None, new: Resource[DataplaneSpec], store: Store) -> Decision:
        found = tuple(workloads.refusals(new.spec.net, self._surroundings_of(new)))
        if found:
            raise InvalidResource(tuple(violation for _, violation in found))
        is_news = old is None or old.spec != new.spec
        decision = Decision(warnings=tuple(_unlike_their_ports(new.spec.net)) if is_news else ())
        if old is None or (not is_news and old.labels == new.labels):
            return decision
        return await self._weakened(decision, old, new, store)

    async def _weakened(
        self, decision: Decision, old: Resource[DataplaneSpec], new: Resource[DataplaneSpec], store: Store
    ) -> Decision:
        """Adds what is weakened. Without mutual TLS everybody is admitted, whatever permissions say."""
        mesh = await find(store, kinds.MESH.key(new.mesh))
        if mesh is None or mesh.spec.enabled_backend is None:
            return decision
        permissions = self._permissions_of(new.mesh, store)
        edited = EditedDataplane(permissions, mesh.spec, old, new)
        found = [one for one in await self._turns.collect(edited.weakenings()) if one is not None]
        more = (Violation(found[0].field, f"{len(found) - _NAMED} more"),) if len(found) > _NAMED else ()
        weakens = (*found[:_NAMED], *more)
        guarded = weakening_is_refused(mesh.labels, self._guarded)
        looked_at: tuple[Operation, ...] = (
            (Expect(mesh.key, mesh.version), *all_of(permissions, new.mesh)) if guarded else ()
        )
        return replace(decision, operations=looked_at, weakens=weakens, guarded=guarded)

    async def on_delete(self, old: Resource[DataplaneSpec], store: Store) -> Decision:
        return Decision()


def _unlike_their_ports(networking: Networking) -> Iterator[str]:
    """Yields a warning for each inbound that is served as TCP, though nobody has said so, and looks like HTTP."""
    for index, inbound in enumerate(networking.inbound):
        port = next((port for port in (inbound.port, inbound.service_port) if port in _HTTP_PORTS), None)
        if port is not None and tag_rules.PROTOCOL not in inbound.tags:
            yield (
                f"networking.inbound[{index}]: port {port} looks like HTTP and is served as TCP: "
                "requests are not looked at, and headers such as x-forwarded-client-cert arrive as the caller wrote "
                "them. Set the tag "
                f"{tag_rules.PROTOCOL} to http, or to tcp if that is what it is"
            )
