"""Which edits begin a staged change, and that nobody is told "complete" from then on."""

import base64
from pathlib import Path
from typing import Any

import pytest

from kuma.base.errors import Conflict
from kuma.resources import kinds
from kuma.resources.models.mesh_transition import MeshTransitionSpec
from kuma.resources.resource import Resource
from kuma.store.manager import ResourceManager
from kuma.store.protocol import Create, Update
from tests.authorities.test_provided import manager, mesh, provide, secret  # noqa: F401
from tests.fakes import cas
from tests.fakes.control_plane import MTLS, resource

TRANSITION = kinds.MESH_TRANSITION.key("default", "default")


async def begins_a_change(manager: ResourceManager, edit: Resource[Any]) -> bool:  # noqa: F811
    """Whether an edit does, of a mesh that was complete before."""
    stored, complete = await manager.find(TRANSITION), MeshTransitionSpec(complete=True)
    new = Create(Resource(TRANSITION, complete), kinds.MESH.key("default"))
    await manager.store.transact([Update(stored.with_spec(complete)) if stored else new])
    outcome = await manager.put(edit)
    assert outcome.staged != (await manager.get(TRANSITION)).spec.complete
    return outcome.staged


async def test_edits_of_a_mesh(manager: ResourceManager, tmp_path: Path) -> None:  # noqa: F811
    ca = cas.root(tmp_path, "one")
    inline = {name: {"inline": base64.b64encode(text.encode()).decode()} for name, text in vars(ca).items()}
    assert await begins_a_change(manager, mesh(inline))
    assert not await begins_a_change(manager, mesh(inline))
    assert not await begins_a_change(manager, mesh(inline, "config")), "another spelling of the same"
    assert not await begins_a_change(manager, mesh(inline, dpCert={"rotation": {"expiration": "1h"}}))
    assert await begins_a_change(manager, mesh(inline, mode="PERMISSIVE"))


async def test_edits_of_the_secrets_of_an_authority(manager: ResourceManager, tmp_path: Path) -> None:  # noqa: F811
    one, two = cas.root(tmp_path, "one"), cas.root(tmp_path, "two")
    await provide(manager, one)
    assert not await begins_a_change(manager, secret("cert", one.cert)), "the same again"
    assert not await begins_a_change(manager, secret("cert", two.cert)), "half of another pair"
    assert await begins_a_change(manager, secret("key", two.key))
    assert not await begins_a_change(manager, secret("of-nobody", "x"))


async def test_what_was_decided_before_an_edit_is_not_stored_after_it(manager: ResourceManager) -> None:  # noqa: F811
    """Not even while another change is under way: it would tell of the edit that it is complete."""
    await manager.put(resource(MTLS))
    for mode in ("PERMISSIVE", "STRICT"):
        before = await manager.get(TRANSITION)
        assert not before.spec.complete
        await manager.put(resource(MTLS.replace("type: builtin", f"type: builtin, mode: {mode}")))
        with pytest.raises(Conflict):
            await manager.store.transact([Update(before.with_spec(MeshTransitionSpec(complete=True)))])
