"""The YAML that users will copy."""

import asyncio
import base64
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from demo.processes import BIN
from kuma.admission.mesh_rules import MeshRules
from kuma.admission.secret_rules import SecretRules
from kuma.base.clock import SystemClock
from kuma.resources import codec, kinds
from kuma.resources.models.mesh_transition import Level
from kuma.resources.models.secret import SecretSpec
from kuma.resources.resource import Resource
from kuma.store.manager import ResourceManager
from kuma.store.sql.embedded.sqlite import open_sqlite
from tests.docs.reference import BLOCKS, digest
from tests.fakes import cas
from tests.fakes.control_plane import dataplane, running

ROOT = Path(__file__).resolve().parents[2]
BUILTIN = """
apiVersion: kuma.io/v1alpha1
kind: Mesh
metadata:
  name: default
spec:
  mtls:
    enabledBackend: ca-1
    backends:
      - name: ca-1
        type: builtin
        dpCert:
          rotation:
            expiration: 1d
        conf:
          caCert:
            RSAbits: 2048
            expiration: 10y
"""
PROVIDED = """
apiVersion: kuma.io/v1alpha1
kind: Mesh
metadata:
  name: default
spec:
  mtls:
    enabledBackend: ca-1
    backends:
      - name: ca-1
        type: provided
        dpCert:
          rotation:
            expiration: 1d
        conf:
          cert:
            secret: name-of-secret
          key:
            secret: name-of-secret
"""
PERMISSIVE = """
apiVersion: kuma.io/v1alpha1
kind: Mesh
metadata:
  name: default
spec:
  mtls:
    enabledBackend: ca-1
    backends:
      - name: ca-1
        type: builtin
        mode: PERMISSIVE # supported values: STRICT, PERMISSIVE
"""


DEVELOPMENT = """
apiVersion: kuma.io/v1alpha1
kind: Mesh
metadata:
  name: default
spec:
  mtls:
    enabledBackend: ca-1
    backends:
      - name: ca-1
        type: provided
        config:
          cert:
            inline: LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCk1JSURHekNDQWdPZ0F3S... # cert in Base64
          key:
            inline: LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCk1JSURHekNDQWdPZ0F3S... # key in Base64
"""
EXAMPLES = {"builtin": BUILTIN, "provided": PROVIDED, "development": DEVELOPMENT, "permissive": PERMISSIVE}


def test_these_are_all_examples_of_the_documentation() -> None:
    """Word for word: by their hashes."""
    listed = [block.sha256 for block in BLOCKS if block.words.startswith("apiVersion:")]
    assert listed == [digest(example.strip("\n")) for example in EXAMPLES.values()]


@pytest.mark.parametrize("name", EXAMPLES)
async def test_the_documentations_examples_work_as_they_stand(tmp_path: Path, name: str) -> None:
    """Applied with `kumactl apply -f` to a control plane; then a proxy has a certificate of the backend."""
    ca = cas.root(tmp_path, "Hello", days="60")
    example = EXAMPLES[name]
    for text in (ca.cert, ca.key):  # what the example only hints at
        example = re.sub(r"inline: \S+\.\.\.", f"inline: {base64.b64encode(text.encode()).decode()}", example, count=1)
    (tmp_path / "mesh.yaml").write_text(example)
    async with running(tmp_path / "cp") as cp:
        if name == "provided":
            secret = SecretSpec(data=(ca.cert + ca.key).encode())
            await cp.apply_resource(Resource(kinds.SECRET.key("name-of-secret", "default"), secret))
        address = f"http://localhost:{await cp.parts.api['API server'].port()}"
        await kumactl(tmp_path, "config", "control-planes", "add", "--name", "test", "--address", address)
        said = await kumactl(tmp_path, "apply", "-f", "mesh.yaml")
        assert 'Mesh "default" configured' in said
        assert (
            ("is taken for conf; write conf" in said)
            == ("private key is given inline" in said)
            == ("config:" in example)
        )
        web = await cp.proxy(dataplane("web-01", "web"))
        await web.until(lambda: web.certificate)
        (proxy,) = cp.parts.proxies
        assert proxy.keeper.identity is not None
        assert proxy.keeper.identity.backend == "ca-1"
        life = proxy.keeper.identity.not_after - proxy.keeper.identity.not_before
        assert life.days == (1 if "expiration: 1d" in example else 30)
        assert ("mode: PERMISSIVE" in example) == (cp.parts.views.view("default").position.level is Level.ENCRYPTING)
        if "type: provided" in example:
            (tmp_path / "leaf.pem").write_bytes(web.certificate)
            cas.openssl(tmp_path, "verify", "-CAfile", "Hello.crt", "leaf.pem")


async def kumactl(home: Path, *arguments: str) -> str:
    """What `kumactl` prints."""
    process = await asyncio.create_subprocess_exec(
        BIN / "kumactl",
        *arguments,
        cwd=home,
        env={**os.environ, "HOME": str(home)},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    return said.decode()


@pytest.fixture
async def manager(tmp_path: Path) -> AsyncIterator[ResourceManager]:
    store = await open_sqlite(tmp_path / "kuma.db", SystemClock())
    found = ResourceManager(store, {"Mesh": MeshRules(SystemClock()), "Secret": SecretRules(SystemClock())})
    await found.put(codec.parse({"type": "Mesh", "name": "default"}))
    ca = cas.root(tmp_path, "Hello", days="60")
    secret = SecretSpec(data=(ca.cert + ca.key).encode())
    for name in ("name-of-secret", "ca-cert", "ca-key"):
        await found.put(Resource(kinds.SECRET.key(name, "default"), secret))
    yield found
    await store.close()


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "concepts").glob("*.md")), ids=lambda path: path.stem)
async def test_examples_of_our_own_pages(manager: ResourceManager, page: Path) -> None:
    for text in re.findall(r"^```yaml\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE):
        for document in codec.documents(text):
            await manager.put(codec.parse(document))
