"""The one table of kinds: everything that serves, stores or prints resources is driven by it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from kuma.base.errors import InvalidResource, NotForUs, Violation
from kuma.resources import masks, naming, workload_health
from kuma.resources.models import (
    access_logs,
    dataplane,
    dataplane_validation,
    mesh,
    mesh_traffic_permission,
    stored_only,
    traffic_permission,
)
from kuma.resources.models.blocks import dataplane_services, mesh_blocks
from kuma.resources.models.config import ConfigSpec
from kuma.resources.models.coordination import InstanceSpec, LeaseSpec, RolloutProgressSpec
from kuma.resources.models.dataplane_insight import DataplaneInsightSpec
from kuma.resources.models.mesh_transition import MeshTransitionSpec
from kuma.resources.models.observed_traffic import ObservedTrafficSpec
from kuma.resources.models.secret import SecretSpec
from kuma.resources.naming import Naming
from kuma.resources.resource import Key, Model, Opaque


def _nothing(_: Any) -> Iterable[Any]:
    return ()


def _nothing_in_mesh(_: Any, mesh: str) -> Iterable[Any]:
    return ()


def _as_it_is(spec: Any) -> Any:
    return spec


def _as_given(spec: Any, _: Any) -> Any:
    return spec


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of resource: its names in files, paths and commands, and its rules.

    `nested`: in the Universal form, too, what it says stands under `spec`.
    `validate_in_mesh` has the rules that depend on the name of the mesh.
    `not_done` names what is taken and given back, and has no effect here: told as warnings, or refused if strict.
    `admin_only`: read and written by administrators; `admin_writes`: written by them, read by users.
    `shown` makes of a spec what readers see; `meant` makes of what a user sends, and of what is stored, what is to be.
    `completed` adds to what is written, unchecked, what the labels of the resource say.
    """

    name: str
    scope: Literal["Global", "Mesh"]
    path: str
    singular: str
    plural: str
    spec: type[Model]
    validate: Callable[[Any], Iterable[Violation]] = _nothing
    validate_in_mesh: Callable[[Any, str], Iterable[Violation]] = _nothing_in_mesh
    warnings: Callable[[Any], Iterable[str]] = _nothing
    not_done: Callable[[Any], Iterable[Violation]] = _nothing
    admin_only: bool = False
    admin_writes: bool = False
    read_only: bool = False
    sealed: bool = False
    nested: bool = False
    shown: Callable[[Any], Any] = _as_it_is
    meant: Callable[[Any, Any], Any] = _as_given
    completed: Callable[[Mapping[str, Any], Mapping[str, str]], Mapping[str, Any]] = _as_given
    path_aliases: tuple[str, ...] = ()

    @property
    def masks(self) -> bool:
        """Tells whether readers are not shown everything that is stored."""
        return self.shown is not _as_it_is

    @property
    def naming(self) -> Naming:
        """Its names alone."""
        return Naming(self.name, self.scope, self.path, self.singular, self.plural)

    @property
    def in_mesh(self) -> bool:
        return self.naming.in_mesh

    def key(self, name: str, mesh: str = "") -> Key:
        """The key of a resource of this kind."""
        return self.naming.key(name, mesh)


MESH = Kind(
    *naming.MESH, mesh.MeshSpec,
    validate=mesh.validate, warnings=mesh.warnings, not_done=mesh_blocks.not_done,
    sealed=True, shown=masks.masked, meant=masks.unmasked,  # it may hold a CA's key inline
    admin_writes=True,  # whoever chooses the CA has every identity
)  # fmt: skip
DATAPLANE = Kind(
    *naming.DATAPLANE, dataplane.DataplaneSpec,
    validate=dataplane_validation.validate, validate_in_mesh=dataplane_validation.validate_names,
    not_done=dataplane_validation.not_done, meant=workload_health.meant, completed=dataplane_services.with_tags,
)  # fmt: skip
DATAPLANE_INSIGHT = Kind(*naming.DATAPLANE_INSIGHT, DataplaneInsightSpec, read_only=True)
MESH_TRANSITION = Kind(*naming.MESH_TRANSITION, MeshTransitionSpec, read_only=True)
TRAFFIC_PERMISSION = Kind(
    *naming.TRAFFIC_PERMISSION, traffic_permission.TrafficPermissionSpec, validate=traffic_permission.validate,
)  # fmt: skip
MESH_TRAFFIC_PERMISSION = Kind(
    *naming.MESH_TRAFFIC_PERMISSION, mesh_traffic_permission.MeshTrafficPermissionSpec, nested=True,
    validate=mesh_traffic_permission.validate, warnings=mesh_traffic_permission.warnings,
)  # fmt: skip
TRAFFIC_LOG = Kind(*naming.TRAFFIC_LOG, access_logs.TrafficLogSpec, validate=access_logs.validate_traffic_log)
MESH_ACCESS_LOG = Kind(
    *naming.MESH_ACCESS_LOG, access_logs.MeshAccessLogSpec,
    nested=True, validate=access_logs.validate, not_done=access_logs.not_done,
    admin_writes=True,  # whoever chooses a file and what is written into it has the proxies' machines
)  # fmt: skip
SECRET = Kind(*naming.SECRET, SecretSpec, admin_only=True, sealed=True)
GLOBAL_SECRET = Kind(
    *naming.GLOBAL_SECRET, SecretSpec, admin_only=True, sealed=True, path_aliases=("globalsecrets",),
)  # fmt: skip

CONFIG = Kind("Config", "Global", "", "", "", ConfigSpec, read_only=True)
"""What the control plane keeps for itself; it has no path."""
OBSERVED_TRAFFIC = Kind("ObservedTraffic", "Mesh", "", "", "", ObservedTrafficSpec, read_only=True)
"""Who has called a Dataplane; shown by the mesh as a whole."""
INSTANCE = Kind("ControlPlaneInstance", "Global", "", "", "", InstanceSpec, read_only=True)
LEASE = Kind("Lease", "Global", "", "", "", LeaseSpec, read_only=True)
ROLLOUT_PROGRESS = Kind("RolloutProgress", "Global", "", "", "", RolloutProgressSpec, read_only=True)
COORDINATION = (INSTANCE, LEASE, ROLLOUT_PROGRESS)
"""What control planes over one store tell each other."""
TOLD = frozenset(kind.name for kind in (DATAPLANE_INSIGHT, OBSERVED_TRAFFIC, *COORDINATION))
"""Kinds in which control planes tell what they see: of those of a newer version, what is understood is taken."""
CLUSTER_ID = CONFIG.key("kuma-cluster-id")
FORMER_PERMISSION = "kuma-permission-before-"
"""How the names of what is noted of changed permissions begin; see `kuma.admission.former_permissions`."""

STORED_ONLY = tuple(Kind(*kind.naming, Opaque, nested=kind.nested, not_done=kind.not_done) for kind in stored_only.ALL)
"""Policies of the original that have no effect here."""

IN_EFFECT = (
    MESH, MESH_TRANSITION, DATAPLANE, DATAPLANE_INSIGHT, TRAFFIC_PERMISSION, MESH_TRAFFIC_PERMISSION, TRAFFIC_LOG,
    MESH_ACCESS_LOG, SECRET, GLOBAL_SECRET,
)  # fmt: skip
ALL = (*IN_EFFECT, *STORED_ONLY)
_WITHOUT_PATH = (CONFIG, OBSERVED_TRAFFIC, *COORDINATION)
_BY_NAME = {kind.name: kind for kind in (*ALL, *_WITHOUT_PATH)}


def by_name(name: str) -> Kind:
    """The kind called `name`, as in a resource's `type`.

    Raises:
        InvalidResource: there is none; names the ones that users may write.
    """
    try:
        return _BY_NAME[name]
    except KeyError:
        raise _unknown(name) from None


def declarable(name: str) -> Kind:
    """The kind called `name`, if users may declare resources of it.

    Raises:
        InvalidResource: there is none.
        NotForUs: the control plane alone writes it. What is exported from one has it beside the rest.
    """
    kind = by_name(name)
    if kind in _WITHOUT_PATH:
        raise _unknown(name)
    if kind.read_only:
        raise NotForUs.of("type", f"{name} is written by the control plane only")
    return kind


def _unknown(name: str) -> InvalidResource:
    for table, error in ((stored_only.REFUSED, InvalidResource), (stored_only.LEFT_OUT, NotForUs)):
        if name in table:
            return error.of("type", f"{name} is not implemented here: {table[name]}")
    declarable_names = [kind.name for kind in ALL if not kind.read_only]
    close = difflib.get_close_matches(name[:100], declarable_names, n=1)
    suggestion = f"; did you mean {close[0]}?" if close else ""
    known = ", ".join(sorted(kind.name for kind in IN_EFFECT if not kind.read_only))
    return InvalidResource.of("type", f'unknown resource type "{name[:100]}"{suggestion}. Known types: {known}')
