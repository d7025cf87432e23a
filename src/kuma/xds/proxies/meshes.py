"""Computes what the proxies of each mesh should run, again when the mesh changes and only where it matters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from kuma.authorities import trust
from kuma.authorities.registry import STANDARD, Drivers
from kuma.authorities.trust import Trust
from kuma.base.turns import Turns
from kuma.policy.succession import Stage
from kuma.resources.resource import Key, Resource
from kuma.resources.view import MeshView
from kuma.store.views import Views
from kuma.xds.envoy import resource_names, tls
from kuma.xds.envoy.listeners.connection_limits import STANDARD_LINGER
from kuma.xds.envoy.node.capabilities import Capabilities
from kuma.xds.envoy.resource import Entry, TypeUrl
from kuma.xds.envoy.services.service_members import Withheld
from kuma.xds.envoy.snapshot import SETTLED, MeshConfig
from kuma.xds.proxies.host_names import HostNames


@dataclass(frozen=True, slots=True)
class MeshState:
    """One mesh at one instant: its configuration and its trust."""

    config: MeshConfig
    trust: Trust = trust.NONE
    bundle: Entry | None = None
    """The trust bundle that proxies hold."""

    @classmethod
    def of(
        cls,
        view: MeshView,
        previous: MeshState | None,
        stage: Stage = SETTLED,
        drivers: Drivers = STANDARD,
        withheld: Mapping[str, Withheld] | None = None,
        linger: timedelta = STANDARD_LINGER,
        *,
        has_service_addresses: bool = False,
    ) -> MeshState:
        """Returns the state that follows from `view`; what has not changed is taken from `previous`.

        `stage` is how far its leaves and connections have followed its permissions, `withheld` the inbounds that
        Dataplanes do not serve, `linger` how long connections may outlive the certificates they were opened with.
        """
        before = previous.config if previous else None
        config = MeshConfig(view, before, stage, withheld, linger, has_service_addresses=has_service_addresses)
        if previous is None:
            found = trust.trust(view, trust.NONE, drivers)
            return cls(config, found, _bundle(view.name, found.position.roots))
        old = previous.config.view
        if old.mesh is view.mesh and old.secrets is view.secrets and old.transition is view.transition:
            return cls(config, previous.trust, previous.bundle)
        found = trust.trust(view, previous.trust, drivers)
        same = found.position.roots == previous.trust.position.roots
        return cls(config, found, previous.bundle if same else _bundle(view.name, found.position.roots))

    @property
    def leaves_its_authority(self) -> bool:
        """Tells whether the mesh is on its way from the authority that issues to another one, or to none."""
        backend = self.config.view.enabled_backend
        return backend is None or self.trust.fingerprint(backend.name) not in ("", self.trust.position.authority)


Affected = Callable[[str, frozenset[str]], None]
"""Told a mesh and the Dataplanes in it whose snapshot or identity may be another now."""
Listener = Callable[[frozenset[str]], None]
"""Told the names of the changed meshes."""


class Meshes:
    """Holds the newest state of every mesh; tells `on_affected` which proxies a change concerns.

    Of one commit, first all states are made anew and their proxies told, and then whoever has called `on_change`: no
    listener sees a view that is newer than the state of its mesh.
    """

    def __init__(
        self,
        views: Views,
        on_affected: Affected,
        turns: Turns,
        drivers: Drivers = STANDARD,
        linger: timedelta = STANDARD_LINGER,
        names: HostNames | None = None,
        *,
        has_service_addresses: bool = False,
    ) -> None:
        """`has_service_addresses` says that tags tell the addresses of services, as in Kubernetes."""
        self._views = views
        self._names = names
        self._turns = turns
        self._states: dict[str, MeshState] = {}
        self._stages: dict[str, Stage] = {}
        self._withheld: dict[str, Mapping[str, Withheld]] = {}
        self._on_affected = on_affected
        self._drivers = drivers
        self._linger = linger
        self._has_service_addresses = has_service_addresses
        self._listeners: list[Listener] = []
        views.on_change(self._views_changed)
        if names is not None:
            names.on_change(self._views_changed)

    def state(self, mesh: str) -> MeshState:
        """Returns the mesh's state now; an empty one for a mesh that is not stored."""
        return self._states.get(mesh) or MeshState.of(MeshView(mesh), None)

    async def entries(
        self, key: Key, admin_port: int, envoy: Capabilities
    ) -> tuple[MeshState, Sequence[tuple[TypeUrl, Entry]]]:
        """Returns what a proxy should run, secrets apart, and the state it follows from: by then another may be newer.

        Others have their turn meanwhile, if there is much to be made.
        """
        state = self.state(key.mesh)
        return state, await self._turns.collect(state.config.entries(key.name, admin_port, envoy))

    def unresolved(self, key: Key) -> Sequence[str]:
        """Returns the host names of a Dataplane that cannot be resolved now, each with the reason."""
        return self._names.failures(key.mesh, key.name) if self._names is not None else ()

    async def until_seen(self, resource: Resource[Any]) -> None:
        """Return once a stored resource is part of its mesh's state."""
        await self._views.until(lambda: self._views.holds(resource))

    async def until_listed(self) -> None:
        """Return once what is stored has been seen."""
        await self._views.until(lambda: True)

    def on_change(self, listener: Listener) -> None:
        """Call `listener` after every commit, once states and proxies have followed it. It must not block."""
        self._listeners.append(listener)

    def go_to(self, mesh: str, stage: Stage) -> None:
        """Notes how far the leaves and connections of a mesh follow its permissions now."""
        self._stages[mesh] = stage
        self._changed(frozenset({mesh}))

    def withhold(self, mesh: str, withheld: Mapping[str, Withheld]) -> None:
        """Stops serving inbounds of Dataplanes, by name, and serves again those that are not among them any more."""
        self._withheld[mesh] = withheld
        self._changed(frozenset({mesh}))

    def _views_changed(self, meshes: frozenset[str]) -> None:
        self._changed(meshes)
        for listener in self._listeners:
            listener(meshes)

    def _changed(self, meshes: frozenset[str]) -> None:
        for mesh in meshes:
            before = self.state(mesh)
            view = self._seen(mesh)
            after = self._states[mesh] = MeshState.of(
                view,
                before,
                self._stages.get(mesh, SETTLED),
                self._drivers,
                self._all_withheld(mesh),
                self._linger,
                has_service_addresses=self._has_service_addresses,
            )
            affected = after.config.affected_since(before.config)
            if after.trust is not before.trust:
                affected |= frozenset(view.dataplanes)
            if affected:
                self._on_affected(mesh, affected)
            if view == MeshView(mesh):
                del self._states[mesh]
                self._stages.pop(mesh, None)
                self._withheld.pop(mesh, None)

    def _seen(self, mesh: str) -> MeshView:
        """Returns a mesh as its proxies are to see it: with addresses in the place of host names."""
        view = self._views.view(mesh)
        return self._names.seen(view) if self._names is not None else view

    def _all_withheld(self, mesh: str) -> Mapping[str, Withheld]:
        """Returns the inbounds that are not served, because they must not be or cannot."""
        judged, unresolved = self._withheld.get(mesh, {}), self._names.withheld(mesh) if self._names is not None else {}
        if not unresolved:
            return judged
        names = judged.keys() | unresolved.keys()
        return {name: {**judged.get(name, {}), **unresolved.get(name, {})} for name in names}


def _bundle(mesh: str, roots: tuple[str, ...]) -> Entry | None:
    """Returns the roots that proxies trust. None rather than empty: without a bundle Envoy trusts nobody."""
    if not roots:
        return None
    return Entry.of(resource_names.trust_bundle_secret(mesh), tls.trust_bundle(mesh, "".join(roots).encode()))
