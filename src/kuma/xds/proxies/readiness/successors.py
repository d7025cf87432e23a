"""Tells whether a service would have nobody once a proxy ends, though another control plane is about to show one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from kuma.coordination.coordination import Coordination
from kuma.resources.models.dataplane import DataplaneSpec
from kuma.resources.resource import Key, Resource
from kuma.resources.view import MeshView
from kuma.xds.envoy.services import serving_label

_Dataplane = Resource[DataplaneSpec]


class Successors:
    """Knows them by service: many that end at once ask again after every commit, which costs none of them a search."""

    def __init__(self, view_of: Callable[[str], MeshView], coordination: Coordination) -> None:
        self._view_of = view_of
        self._coordination = coordination
        self._looked_at: Mapping[str, _Dataplane] = {}
        self._members: dict[str, list[_Dataplane]] = {}
        """The Dataplanes of each service, of those that were looked at last."""

    def are_about_to_come(self, leaving: Key) -> bool:
        """Tells whether a service of a proxy would have nobody, though a proxy of it is at another control plane."""
        dataplanes = self._view_of(leaving.mesh).dataplanes
        if leaving.name not in dataplanes or not self._coordination.others():
            return False
        members = self._by_service(dataplanes)
        return any(self._would_lack(members[service], leaving) for service in dataplanes[leaving.name].spec.services)

    def _would_lack(self, members: Iterable[_Dataplane], leaving: Key) -> bool:
        others = [member for member in members if member.name != leaving.name]
        if any(map(serving_label.is_serving, others)):
            return False
        return any(not serving_label.has_ended(one) and self._coordination.has(one.key) for one in others)

    def _by_service(self, dataplanes: Mapping[str, _Dataplane]) -> Mapping[str, list[_Dataplane]]:
        if dataplanes is not self._looked_at:
            self._looked_at, self._members = dataplanes, {}
            for dataplane in dataplanes.values():
                for service in dataplane.spec.services:
                    self._members.setdefault(service, []).append(dataplane)
        return self._members
