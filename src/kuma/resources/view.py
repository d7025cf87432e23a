"""The mesh view: an immutable picture of all resources of one mesh, replaced at every change."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

from kuma.resources.models.access_logs import MeshAccessLogSpec, TrafficLogSpec
from kuma.resources.models.dataplane import DataplaneSpec
from kuma.resources.models.mesh import Backend, MeshSpec
from kuma.resources.models.mesh_traffic_permission import MeshTrafficPermissionSpec
from kuma.resources.models.mesh_transition import MeshTransitionSpec, Position
from kuma.resources.models.secret import Secrets
from kuma.resources.models.traffic_permission import TrafficPermissionSpec
from kuma.resources.resource import Key, Resource

_SINGLE = {"Mesh": "mesh", "MeshTransition": "transition"}
_FIELDS = {
    "Dataplane": "dataplanes",
    "TrafficPermission": "permissions",
    "MeshTrafficPermission": "mesh_permissions",
    "TrafficLog": "traffic_logs",
    "MeshAccessLog": "mesh_access_logs",
    "Secret": "secrets",
}


class Named(dict[str, Any]):
    """Resources of one kind by name, which nobody changes once it is part of a view.

    It knows which names differ from the one that it was made from: thousands are not compared for one that has changed.
    """

    __slots__ = ("__weakref__", "_before", "_edited")

    def __init__(self, before: Mapping[str, Any] | None = None, edited: Mapping[str, Any] | None = None) -> None:
        """Copies `before`, with `edited` in it: a name without a resource (None) is left out."""
        super().__init__(before or {})
        self._edited = frozenset(edited or ())
        self._before = weakref.ref(before) if isinstance(before, Named) else None
        for name, resource in (edited or {}).items():
            if resource is None:
                dict.pop(self, name, None)
            else:
                dict.__setitem__(self, name, resource)

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        """Keeps what is shared from being changed, as a mapping proxy would.

        Raises:
            TypeError: always.
        """
        raise TypeError("resources of a view: does not support item assignment")

    __setitem__ = __delitem__ = __ior__ = update = setdefault = pop = popitem = clear = _refuse

    def edited_since(self, before: Mapping[str, Any]) -> frozenset[str] | None:
        """Returns the names that may differ from `before`, if this was made from it in few steps; else None."""
        edited, made = self._edited, self
        for _ in range(_STEPS):
            origin = made._before() if made._before is not None else None
            if origin is before:
                return edited
            if origin is None:
                return None
            edited, made = edited | origin._edited, origin
        return None


_STEPS = 8
"""Commits that are followed back: whoever has seen fewer compares all names."""


def changed_names(before: Mapping[str, Any], after: Mapping[str, Any]) -> frozenset[str]:
    """Returns the names under which there is another resource in one mapping than in the other, or none."""
    if before is after:
        return frozenset()
    if isinstance(after, Named) and (edited := after.edited_since(before)) is not None:
        return frozenset(name for name in edited if before.get(name) is not after.get(name))
    found = {name for name, resource in after.items() if before.get(name) is not resource}
    if len(before) + sum(name not in before for name in found) > len(after):  # some are gone
        found.update(before.keys() - after.keys())
    return frozenset(found)


def _empty() -> Mapping[str, Any]:
    return Named()


@dataclass(frozen=True, slots=True)
class MeshView:
    """One mesh at one instant; `mesh` is None when the Mesh itself is not stored."""

    name: str
    mesh: Resource[MeshSpec] | None = None
    transition: Resource[MeshTransitionSpec] | None = None
    dataplanes: Mapping[str, Resource[DataplaneSpec]] = field(default_factory=_empty)
    permissions: Mapping[str, Resource[TrafficPermissionSpec]] = field(default_factory=_empty)
    mesh_permissions: Mapping[str, Resource[MeshTrafficPermissionSpec]] = field(default_factory=_empty)
    traffic_logs: Mapping[str, Resource[TrafficLogSpec]] = field(default_factory=_empty)
    mesh_access_logs: Mapping[str, Resource[MeshAccessLogSpec]] = field(default_factory=_empty)
    secrets: Secrets = field(default_factory=_empty, repr=False)

    @property
    def position(self) -> Position:
        """The position of the mesh's mutual TLS; plaintext if nothing is known."""
        return self.transition.spec.position if self.transition else Position()

    @property
    def backends(self) -> tuple[Backend, ...]:
        """The authorities that are listed."""
        return self.mesh.spec.backends if self.mesh else ()

    @property
    def enabled_backend(self) -> Backend | None:
        """The authority that issues, or None while mutual TLS is off."""
        return self.mesh.spec.enabled_backend if self.mesh else None

    def holds(self, key: Key) -> bool:
        """Tells whether a resource called `key` is part of this view, if it is stored."""
        if key.kind in _SINGLE:
            return self.name == (key.name if key.kind == "Mesh" else key.mesh)
        return key.kind in _FIELDS and key.mesh == self.name

    def find(self, key: Key) -> Resource[Any] | None:
        """Returns the resource called `key`, if it is part of views and stored."""
        if key.kind in _SINGLE:
            single: Resource[Any] | None = getattr(self, _SINGLE[key.kind])
            return single
        name = _FIELDS.get(key.kind)
        found: Resource[Any] | None = getattr(self, name).get(key.name) if name else None
        return found

    def having(self, resource: Resource[Any]) -> MeshView:
        """Returns the view after `resource` was created or updated."""
        return self.following({resource.key: resource})

    def following(self, changes: Mapping[Key, Resource[Any] | None]) -> MeshView:
        """Returns the view after these were created, updated or deleted (None); itself if it holds no such kind.

        One copy is made however many there are.
        """
        single: dict[str, Any] = {}
        edited: dict[str, dict[str, Any]] = {}
        for key, resource in changes.items():
            if self.find(key) is resource:
                continue
            if key.kind in _SINGLE:
                single[_SINGLE[key.kind]] = resource
            elif (name := _FIELDS.get(key.kind)) is not None:
                edited.setdefault(name, {})[key.name] = resource
        many = {name: Named(getattr(self, name), some) for name, some in edited.items()}
        made: dict[str, Any] = {**single, **many}
        return replace(self, **made) if made else self
