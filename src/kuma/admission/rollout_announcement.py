"""Announces a staged rollout in the transaction that causes it, so that no status says "complete" in between."""

from __future__ import annotations

from typing import Any

from kuma.resources import kinds
from kuma.resources.models.mesh import MeshSpec
from kuma.resources.models.mesh_transition import MeshTransitionSpec
from kuma.resources.resource import Resource
from kuma.store.protocol import Create, Operation, Store, Update, find

BEGUN = "beginning"


async def announced(mesh: str, store: Store) -> tuple[Operation, ...]:
    """Returns the operations that mark the rollout of a mesh as begun; the controller fills in the details at once.

    Also if it has begun before: then what was decided of it without the edit cannot be stored any more.
    """
    key = kinds.MESH_TRANSITION.key(mesh, mesh)
    stored = await find(store, key)
    if stored is None:
        return (Create(Resource(key, MeshTransitionSpec(step=BEGUN)), kinds.MESH.key(mesh)),)
    spec = stored.spec.model_copy(update={"complete": False, "step": BEGUN})
    return (Update(stored.with_spec(spec)),)


def staged_part(mesh: Resource[MeshSpec] | None) -> Any:
    """Returns the part of a Mesh that is changed step by step: its mutual TLS without leaf lifetimes and timeouts.

    How it is spelled is no change.
    """
    mtls = mesh.spec.mtls if mesh else None
    if mtls is None or mtls.enabled is None:
        return None
    return mtls.enabled_backend, [(b.name, b.type, b.mode, b.settings) for b in mtls.backends]
