"""The YAML that users will copy."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kuma.base.clock import SystemClock
from kuma.pki.mesh_rules import MeshRules
from kuma.pki.secret_rules import SecretRules
from kuma.resources import codec, kinds
from kuma.resources.resource import Resource
from kuma.resources.secret import SecretSpec
from kuma.store.manager import ResourceManager
from kuma.store.sqlite import open_sqlite
from tests.fakes import cas

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


@pytest.mark.parametrize("example", [BUILTIN, PROVIDED, PERMISSIVE], ids=["builtin", "provided", "permissive"])
async def test_examples_of_the_documentation(manager: ResourceManager, example: str) -> None:
    (document,) = codec.documents(example)
    outcome = await manager.put(codec.parse(document))
    assert codec.to_kubernetes(outcome.resource)["spec"]["mtls"]["enabledBackend"] == "ca-1"


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "concepts").glob("*.md")), ids=lambda path: path.stem)
async def test_examples_of_our_own_pages(manager: ResourceManager, page: Path) -> None:
    for text in re.findall(r"^```yaml\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE):
        for document in codec.documents(text):
            await manager.put(codec.parse(document))
