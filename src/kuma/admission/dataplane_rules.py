"""Rules for changes of Dataplanes: inbounds lead to workloads of the proxy's own machine, and to nothing else there.

Whoever connects to an inbound arrives at the workload from the loopback. If that workload were the control plane's own
API, the caller could be its administrator; if it were an Envoy's administration, the caller would command that proxy.
`kuma.xds.proxies.inbound_review` judges stored Dataplanes again by the same decision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from kuma.base.errors import InvalidResource
from kuma.policy import workloads
from kuma.policy.workloads import Surroundings
from kuma.resources import tags as tag_rules
from kuma.resources.models.dataplane import DataplaneSpec, Networking
from kuma.resources.resource import Resource
from kuma.store.manager import Decision
from kuma.store.protocol import Store

SurroundingsOf = Callable[[Resource[DataplaneSpec]], Surroundings]
"""Tells what is known of the machine of a Dataplane."""
_HTTP_PORTS = frozenset({80, 8000, 8008, 8080, 8081, 8088, 8888})
"""IANA's for HTTP, and the ones beside them that servers take by default."""


class DataplaneRules:
    """Refuses inbounds that lead elsewhere, as far as that is known now."""

    def __init__(self, surroundings_of: SurroundingsOf) -> None:
        self._surroundings_of = surroundings_of

    async def on_put(self, old: Resource[DataplaneSpec] | None, new: Resource[DataplaneSpec], store: Store) -> Decision:
        found = tuple(workloads.refusals(new.spec.net, self._surroundings_of(new)))
        if found:
            raise InvalidResource(tuple(violation for _, violation in found))
        is_news = old is None or old.spec != new.spec
        return Decision(warnings=tuple(_unlike_their_ports(new.spec.net)) if is_news else ())

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
