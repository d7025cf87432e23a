"""Trying files out: what would become of them is what becomes of them, and until then nothing does."""

from __future__ import annotations

import base64
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from demo.mesh import DemoMesh
from demo.processes import BIN
from tests.fakes.control_plane import MTLS
from tests.fakes.patience import PATIENCE
from tests.kumactl.control_planes import known_to_kumactl
from tests.kumactl.test_commands import run

PERMISSION = """
type: TrafficPermission
mesh: fresh
name: allow-all
sources: [{match: {kuma.io/service: '*'}}]
destinations: [{match: {kuma.io/service: '*'}}]
"""
FRESH = """
type: Mesh
name: fresh
mtls:
  enabledBackend: ca-1
  backends: [{name: ca-1, type: provided, conf: {cert: {secret: ca-cert}, key: {secret: ca-key}}}]
"""


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoMesh]:
    with known_to_kumactl(tmp_path_factory.mktemp("cp")) as found:
        yield found


def secrets(home: Path) -> str:
    """The Secrets of a provided CA, made by openssl with the recipe in the documentation."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "90",
         "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=Trial", "-addext", "keyUsage=critical,keyCertSign"],
        cwd=home, check=True, capture_output=True,
    )  # fmt: skip
    files = {"ca-cert": "ca.crt", "ca-key": "ca.key"}
    documents = [
        {"type": "Secret", "mesh": "fresh", "name": name, "data": base64.b64encode((home / file).read_bytes()).decode()}
        for name, file in files.items()
    ]
    return yaml.safe_dump_all(documents)


def test_the_control_plane_is_asked_and_stores_nothing(mesh: DemoMesh) -> None:
    everything = f"{FRESH}---{PERMISSION}---\n{secrets(mesh.home)}"
    tried = run(mesh, "apply", "-f", "-", "--dry-run=server", stdin=everything)
    assert (tried.returncode, tried.stderr) == (0, ""), tried.stderr
    assert sorted(tried.stdout.splitlines()) == [
        'Mesh "fresh" created (server dry run)',
        'Secret "ca-cert" in mesh "fresh" created (server dry run)',
        'Secret "ca-key" in mesh "fresh" created (server dry run)',
        'TrafficPermission "allow-all" in mesh "fresh" created (server dry run)',
    ]
    assert run(mesh, "get", "mesh", "fresh").returncode == 1
    applied = run(mesh, "apply", "-f", "-", stdin=everything)
    assert (applied.returncode, applied.stderr) == (0, "")
    again = run(mesh, "apply", "-f", "-", "--dry-run=server", stdin=everything)
    assert again.stdout.count("unchanged (server dry run)") == 4, again.stdout + again.stderr


def test_what_the_control_plane_would_refuse_is_never_passed(mesh: DemoMesh) -> None:
    """Only it knows of the Secret, or of the mesh, that is not there."""
    other = FRESH.replace("fresh", "other")
    for option in ("--dry-run", "--dry-run=server"):
        done = run(mesh, "apply", "-f", "-", option, stdin=other)
        assert done.returncode == 1
        assert 'standard input: Mesh "other"' in done.stderr
        assert "ca-cert" in done.stderr
    strict = run(mesh, "apply", "-f", "-", "--dry-run", "--strict", stdin="{type: MeshRetry, mesh: default, name: x}")
    assert (strict.returncode, "MeshRetry" in strict.stderr) == (1, True)
    assert run(mesh, "apply", "-f", "-", "--dry-run", stdin=PERMISSION.replace("fresh", "none")).returncode == 1
    odd = run(mesh, "apply", "-f", "-", "--dry-run=all", stdin=other)
    assert (odd.returncode, "--dry-run" in odd.stderr) == (2, True)


def test_a_dry_run_here_prints_what_was_written(mesh: DemoMesh) -> None:
    for option in ("--dry-run", "--dry-run=client"):
        done = run(mesh, "apply", "-f", "-", option, stdin=MTLS)
        assert done.returncode == 0, done.stderr
        assert yaml.safe_load(done.stdout) == yaml.safe_load(MTLS)
    alone = run(mesh, "--no-config", "apply", "-f", "-", "--dry-run=client", stdin=MTLS)
    assert (alone.returncode, alone.stderr) == (0, "")


def test_without_a_control_plane_a_dry_run_says_who_has_not_judged(tmp_path: Path, mesh: DemoMesh) -> None:
    nowhere = tmp_path / "config"
    run(mesh, "--config-file", str(nowhere), "config", "control-planes", "add", "--name", "x", "--skip-check",
        "--address", "http://localhost:1")  # fmt: skip
    done = run(mesh, "--config-file", str(nowhere), "apply", "-f", "-", "--dry-run", stdin=MTLS)
    assert (done.returncode, yaml.safe_load(done.stdout)["name"]) == (0, "default")
    assert done.stderr.startswith("Warning: the control plane may refuse this; it was not asked: cannot reach")
    asked = run(mesh, "--config-file", str(nowhere), "apply", "-f", "-", "--dry-run=server", stdin=MTLS)
    assert (asked.returncode, asked.stdout) == (1, "")


def test_differences(mesh: DemoMesh) -> None:
    run(mesh, "apply", "-f", "-", stdin="{type: Mesh, name: compared}")
    secret = "{{type: Secret, mesh: compared, name: s, data: {}}}".format
    run(mesh, "apply", "-f", "-", stdin=secret("b25l"))
    same = run(mesh, "diff", "-f", "-", stdin=secret("b25l"))
    assert (same.returncode, same.stdout, same.stderr) == (0, "", "")
    files = f"{MTLS.replace('name: default', 'name: compared')}\n---\n{secret('dHdv')}"
    other = run(mesh, "diff", "-f", "-", stdin=files)
    assert other.returncode == 1, other.stderr
    assert '--- Mesh "compared", now' in other.stdout
    assert "+  enabledBackend: ca-1" in other.stdout
    assert "dHdv" not in other.stdout, "what is in a Secret is not for terminals"
    assert "+data: '*** (another)'" in other.stdout
    assert "enabledBackend" not in run(mesh, "get", "mesh", "compared", "-o", "yaml").stdout
    new = run(mesh, "diff", "-f", "-", stdin="{type: Mesh, name: newcomer}")
    assert (new.returncode, "+name: newcomer" in new.stdout) == (1, True)
    refused = run(mesh, "diff", "-f", "-", stdin="{type: Mesh, name: compared, mtls: {enabledBackend: x}}")
    assert (refused.returncode, refused.stderr.startswith("Error: ")) == (2, True)


def test_whether_something_can_be_deleted(mesh: DemoMesh) -> None:
    run(
        mesh, "apply", "-f", "-", stdin="{type: Mesh, name: kept}\n---\n{type: Secret, mesh: kept, name: s, data: eA==}"
    )
    tried = run(mesh, "delete", "secret", "s", "-m", "kept", "--dry-run")
    assert (tried.returncode, tried.stdout) == (0, 'deleted Secret "s" (dry run)\n')
    assert run(mesh, "get", "secret", "s", "-m", "kept").returncode == 0
    assert run(mesh, "delete", "secret", "t", "-m", "kept", "--dry-run").returncode == 1


RECIPES = re.compile(r"^```sh own-ca\n(.*?)^```$", re.DOTALL | re.MULTILINE)
DOCS = Path(__file__).resolve().parents[2] / "docs"
OWN = """
type: Mesh
name: default
mtls:
  enabledBackend: ca-1
  backends: [{name: ca-1, type: provided, conf: {cert: {secret: ca-cert}, key: {secret: ca-key}}}]
"""


def shell(mesh: DemoMesh, text: str) -> None:
    """Runs what a page shows, as its reader does."""
    environment = {**os.environ, **mesh.environment, "PATH": f"{BIN}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-ec", text], cwd=mesh.home, env=environment, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr


def test_a_ca_of_your_own_by_the_recipes_in_the_documentation(mesh: DemoMesh) -> None:
    made, mended, stored = RECIPES.findall((DOCS / "concepts" / "authorities.md").read_text())
    missing = run(mesh, "apply", "-f", "-", stdin=OWN)
    assert 'conf.cert: could not load data: Resource not found: type="Secret" name="ca-cert"' in missing.stderr
    assert 'conf.key: could not load data: Resource not found: type="Secret" name="ca-key"' in missing.stderr
    plain = made.replace("-addext keyUsage=critical,keyCertSign,cRLSign ", "")
    assert plain != made
    shell(mesh, plain + stored)
    refused = run(mesh, "apply", "-f", "-", stdin=OWN)
    assert refused.returncode == 1
    assert "-addext keyUsage=critical,keyCertSign,cRLSign" in refused.stderr, "the refusal names the recipe"
    for recipe in (mended, made):
        shell(mesh, recipe + stored)
        done = run(mesh, "apply", "-f", "-", "--dry-run=server", stdin=OWN)
        assert (done.returncode, done.stderr) == (0, NO_PERMISSION), done.stderr


NO_PERMISSION = (
    'Warning: mutual TLS is on and mesh "default" has no permission: every call between its services is denied. '
    "Apply a TrafficPermission or MeshTrafficPermission that admits the callers you want\n"
)
