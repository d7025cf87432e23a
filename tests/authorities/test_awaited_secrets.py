"""A Mesh that comes before its Secrets waits for them: never with another CA, and never in plaintext."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path

import pytest
from cryptography import x509

from kuma.base.errors import InvalidResource
from kuma.resources import kinds
from kuma.resources.models.mesh_transition import Level, MeshTransitionSpec
from kuma.xds.envoy.resource import TypeUrl
from tests.fakes import cas
from tests.fakes.control_plane import MTLS, Running, dataplane, resource, running
from tests.fakes.patience import PATIENCE

PROVIDED = (
    "{type: Mesh, name: default, mtls: {enabledBackend: ca-1, skipValidation: true, backends: [{name: ca-1, "
    "type: provided, conf: {cert: {secret: default.ca-builtin-cert-ca-1}, "
    "key: {secret: default.ca-builtin-key-ca-1}}}]}}"
)
"""As the original exports what was builtin."""
BUILTIN = MTLS.replace("name: default", "name: default, labels: {kuma.io/authority: awaited}")


def secret(part: str, content: str) -> str:
    data = base64.b64encode(content.encode()).decode()
    return f"{{type: Secret, mesh: default, name: default.ca-builtin-{part}-ca-1, data: {data}}}"


async def transition(cp: Running) -> MeshTransitionSpec:
    found = await cp.parts.manager.find(kinds.MESH_TRANSITION.key("default", "default"))
    return found.spec if found else MeshTransitionSpec()


@pytest.mark.parametrize("mesh", [PROVIDED, BUILTIN], ids=["as the original exports it", "builtin, with the label"])
async def test_a_mesh_waits_for_the_secrets_of_its_authority(tmp_path: Path, mesh: str) -> None:
    ca = cas.root(tmp_path, "moved", days="90")
    async with running(tmp_path) as cp:
        said = (await cp.parts.manager.put(resource(mesh))).warnings
        assert 'waits for the Secrets "default.ca-builtin-cert-ca-1" and "default.ca-builtin-key-ca-1"' in said[0]
        async with asyncio.timeout(PATIENCE):
            await cp.parts.views.until(lambda: cp.parts.views.view("default").position.level is Level.STRICT)
        early = await cp.proxy(dataplane("web-01", "web"))
        async with asyncio.timeout(PATIENCE):
            await early.until(lambda: early.names(TypeUrl.LISTENER))
        assert not early.certificate, "nobody issues in place of the one that comes"
        waiting = await transition(cp)
        assert (waiting.complete, waiting.step.partition(":")[0]) == (False, "waiting")
        assert "default.ca-builtin-" in waiting.backends[0].problem

        half = (await cp.parts.manager.put(resource(secret("cert", ca.cert)))).warnings
        assert "waits for the other Secret" in half[0]
        assert not (await transition(cp)).complete
        assert (await cp.parts.manager.put(resource(secret("key", ca.key)))).warnings == ()
        async with asyncio.timeout(PATIENCE):
            await cp.parts.views.until(lambda: _complete(cp))
            await early.until(lambda: early.certificate)
        names = {s.name for s in (await cp.parts.manager.list(kinds.SECRET.name, "default")).items}
        assert {"default.ca-builtin-cert-ca-1", "default.ca-builtin-key-ca-1"} <= names, "nothing is cleaned up"
        issuer = x509.load_pem_x509_certificate(early.certificate).issuer
        assert issuer == x509.load_pem_x509_certificate(ca.cert.encode()).subject


def _complete(cp: Running) -> bool:
    found = cp.parts.views.view("default").transition
    return found is not None and found.spec.complete


async def test_live_traffic_stays_as_it_is_while_a_mesh_waits(tmp_path: Path) -> None:
    """Proxies that run in plaintext go on until there is an authority to turn to, and it says so."""
    async with running(tmp_path) as cp:
        await cp.apply("{type: Mesh, name: default}")
        web = await cp.proxy(dataplane("web-01", "web"))
        await cp.settled(1)
        await cp.apply(PROVIDED)
        async with asyncio.timeout(PATIENCE):
            await cp.parts.views.until(lambda: _waits(cp))
        assert cp.parts.views.view("default").position.level is Level.PLAIN
        ca = cas.root(tmp_path, "moved", days="90")
        for part, content in (("cert", ca.cert), ("key", ca.key)):
            await cp.apply(secret(part, content))
        async with asyncio.timeout(PATIENCE):
            await cp.parts.views.until(lambda: _complete(cp))
        assert web.certificate


def _waits(cp: Running) -> bool:
    found = cp.parts.views.view("default").transition
    return found is not None and found.spec.step.startswith("waiting")


async def test_without_being_asked_to_wait_a_missing_secret_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path) as cp:
        refused = PROVIDED.replace("skipValidation: true, ", "")
        with pytest.raises(InvalidResource, match='Resource not found: type="Secret" name="default'):
            await cp.parts.manager.put(resource(refused))
        await cp.parts.manager.put(resource(MTLS))
        names = {s.name for s in (await cp.parts.manager.list(kinds.SECRET.name, "default")).items}
        assert "default.ca-builtin-key-ca-1" in names, "a builtin root is made at once"
