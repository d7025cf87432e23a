"""What a mesh trusts: one authority that cannot be opened is a problem of its own, and of nobody else."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from kuma.authorities import trust
from kuma.resources import kinds
from kuma.resources.resource import Resource
from kuma.resources.view import MeshView
from kuma.store.protocol import Update
from tests.fakes import cas
from tests.fakes.cas import Ca, on_curve, with_extensions
from tests.fakes.control_plane import MTLS, Running, dataplane, resource, running
from tests.fakes.patience import PATIENCE

CA, SIGN = "basicConstraints=CA:TRUE", "keyUsage=keyCertSign"
X400 = "2.5.29.17=DER:30:04:A3:02:30:00"


def given(ca: Ca) -> str:
    conf = {"cert": {"inlineString": ca.cert}, "key": {"inlineString": ca.key}}
    backend = {"name": "own", "type": "provided", "conf": conf}
    return json.dumps({"type": "Mesh", "name": "odd", "mtls": {"enabledBackend": "own", "backends": [backend]}})


async def store_unchecked(cp: Running, mesh: str) -> None:
    """As an older version, which knew fewer rules, would have stored it."""
    wanted = resource(mesh)
    old = await cp.parts.manager.get(wanted.key)
    await cp.parts.manager.store.transact([Update(old.with_spec(wanted.spec))])


async def problem(cp: Running) -> str:
    key = kinds.MESH_TRANSITION.key("odd", "odd")
    async with asyncio.timeout(PATIENCE):
        while True:
            found = await cp.parts.manager.find(key)
            if found is not None and found.spec.backends and found.spec.backends[0].problem:
                return str(found.spec.backends[0].problem)
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("oddity", ["curve", "extension"])
async def test_a_stored_ca_that_cannot_be_read_ends_nothing_now_and_after_a_restart(
    tmp_path: Path, oddity: str
) -> None:
    extensions = with_extensions(CA, SIGN, *([X400] if oddity == "extension" else []))
    algorithm = on_curve("secp112r1") if oddity == "curve" else ("rsa:2048",)
    odd = given(cas.root(tmp_path, "odd", extensions, algorithm))
    async with running(tmp_path) as cp:
        await cp.apply(MTLS, "{type: Mesh, name: odd}")
        await store_unchecked(cp, odd)
        assert (await problem(cp)).startswith("not a valid x509 certificate: ")
    async with running(tmp_path) as cp:
        assert (await problem(cp)).startswith("not a valid x509 certificate: ")
        web = await cp.proxy(dataplane("web-01", "web"))  # of the other mesh
        await web.until(lambda: web.certificate)


def test_whatever_goes_wrong_with_an_authority_is_its_problem_only() -> None:
    """A Secret that says nothing at all stands for what nobody has thought of."""
    backends = "[{name: ca-1, type: builtin}, {name: own, type: provided, conf: {cert: {secret: s}, key: {secret: s}}}]"
    mesh = resource(f"{{type: Mesh, name: default, mtls: {{enabledBackend: ca-1, backends: {backends}}}}}")
    names = ("default.ca-builtin-cert-ca-1", "default.ca-builtin-key-ca-1", "s")
    nothing: Any = None
    secrets = {name: Resource(kinds.SECRET.key(name, "default"), nothing) for name in names}
    found = trust.trust(MeshView("default", mesh=mesh, secrets=secrets))
    assert set(found.problems) == {"ca-1", "own"}
    assert all(text.startswith("AttributeError") for text in found.problems.values())
