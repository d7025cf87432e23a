"""Mesh views without a store."""

from kuma.resources import kinds
from kuma.resources.models.mesh_transition import Level, MeshTransitionSpec, Position
from kuma.resources.resource import Resource
from kuma.resources.view import MeshView


def arrived(view: MeshView) -> MeshView:
    """The view of a mesh that has arrived at what it declares."""
    backend = view.enabled_backend
    level = Level.PLAIN if backend is None else Level.STRICT if backend.mode == "STRICT" else Level.ENCRYPTING
    spec = MeshTransitionSpec(position=Position(level=level))
    return view.having(Resource(kinds.MESH_TRANSITION.key(view.name, view.name), spec))
