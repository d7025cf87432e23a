"""A staged change is announced in the transaction that brings it about: nobody is told "complete" in between."""

from __future__ import annotations

from typing import Any

from kuma.resources import kinds
from kuma.resources.mesh import MeshSpec
from kuma.resources.mesh_transition import MeshTransitionSpec
from kuma.resources.resource import Resource
from kuma.store.protocol import Create, Operation, Store, Update, find

BEGUN = "beginning"


async def announced(mesh: str, store: Store) -> tuple[Operation, ...]:
    """What marks the transition of a mesh as begun. What drives it says more within an instant.

    Also if it has begun before: then what was decided of it without the edit cannot be stored any more.
    """
    key = kinds.MESH_TRANSITION.key(mesh, mesh)
    stored = await find(store, key)
    if stored is None:
        return (Create(Resource(key, MeshTransitionSpec(step=BEGUN)), kinds.MESH.key(mesh)),)
    spec = stored.spec.model_copy(update={"complete": False, "step": BEGUN})
    return (Update(stored.with_spec(spec)),)


def staged_part(mesh: Resource[MeshSpec] | None) -> Any:
    """What of a Mesh is changed step by step: all of its mutual TLS but how long certificates live, and timeouts.

    How it is spelled is no change.
    """
    mtls = mesh.spec.mtls if mesh else None
    if mtls is None or mtls.enabled is None:
        return None
    return mtls.enabled_backend, [(b.name, b.type, b.mode, b.settings) for b in mtls.backends]
