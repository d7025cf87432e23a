"""The URIs in the leaves of a mesh's Dataplanes: their services, and the tags that permissions select callers by."""

from __future__ import annotations

from kuma.pki import spiffe
from kuma.resources.models.dataplane import DataplaneSpec
from kuma.resources.resource import Resource


class LeafUris:
    """Makes them once for each Dataplane: most changes of a mesh have all of them looked at, and make none another."""

    def __init__(self, mesh: str, carried: frozenset[str], members: int, previous: LeafUris | None = None) -> None:
        """`carried` are the tags, other than the service, that leaves say; of `members` Dataplanes they are kept."""
        self._mesh = mesh
        self._carried = carried
        known = previous._known if previous is not None and previous._carried == carried else {}
        self._known: dict[str, tuple[Resource[DataplaneSpec], tuple[str, ...]]] = (
            known if len(known) <= 2 * members else {}
        )

    def of(self, dataplane: Resource[DataplaneSpec]) -> tuple[str, ...]:
        """Returns the URIs of a Dataplane."""
        known = self._known.get(dataplane.name)
        if known is None or known[0] is not dataplane:
            known = self._known[dataplane.name] = dataplane, self._made(dataplane.spec)
        return known[1]

    def _made(self, spec: DataplaneSpec) -> tuple[str, ...]:
        tags = sorted(
            spiffe.tag_uri(tag, value)
            for tag, values in spec.tag_values.items()
            if tag in self._carried
            for value in values
        )
        return (*(spiffe.service_id(self._mesh, service) for service in spec.services), *tags)
