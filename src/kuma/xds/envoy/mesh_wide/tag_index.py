"""Which Dataplanes have a tag: made when it is first asked for, and kept while the Dataplanes are the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property

from kuma.resources.models.dataplane import DataplaneSpec
from kuma.resources.resource import Resource

Dataplanes = Mapping[str, Resource[DataplaneSpec]]


class TagIndex:
    """Names of Dataplanes by tag."""

    def __init__(self, dataplanes: Dataplanes) -> None:
        self._dataplanes = dataplanes

    def following(self, dataplanes: Dataplanes) -> TagIndex:
        """Returns the index of these; itself if they are the same."""
        return self if dataplanes is self._dataplanes else TagIndex(dataplanes)

    def services(self, tags: Iterable[tuple[str, str]]) -> set[str]:
        """Returns the services of the Dataplanes that have all of these tags."""
        return {service for name in self.names(tags) for service in self._dataplanes[name].spec.services[:1]}

    def names(self, tags: Iterable[tuple[str, str]]) -> frozenset[str]:
        """Returns the Dataplanes that have all of these tags."""
        having = [self._names.get(tag, frozenset()) for tag in tags]
        return frozenset.intersection(*having) if having else frozenset(self._dataplanes)

    @cached_property
    def _names(self) -> Mapping[tuple[str, str], frozenset[str]]:
        found: dict[tuple[str, str], set[str]] = {}
        for name, dataplane in self._dataplanes.items():
            for tag, values in dataplane.spec.tag_values.items():
                for value in values:
                    found.setdefault((tag, value), set()).add(name)
        return {tag: frozenset(names) for tag, names in found.items()}
