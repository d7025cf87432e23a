"""What is released holds everything that it needs, and says what is new in it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from demo import resources
from demo.mesh import DemoMesh
from demo.processes import Processes, until
from tools import release


def test_a_changelog_that_does_not_begin_with_the_version_is_told() -> None:
    release.check_changelog("# Changelog\n\n## 1.2.3 (2026-11-26)\n\n## 1.2.2\n", "1.2.3")
    for text in ("# Changelog\n\n## Unreleased\n\n## 1.2.3\n", "# Changelog\n"):
        with pytest.raises(release.NotReleasable, match=r"not with \"1.2.3\""):
            release.check_changelog(text, "1.2.3")


def test_the_wheel_works_where_the_sources_are_not(tmp_path: Path) -> None:
    wheel = release.build(tmp_path / "dist")
    assert len(list((tmp_path / "dist").glob("*.tar.gz"))) == 1
    assert release.missing_from(wheel) == []
    sums = release.write_sums(wheel.parent, release.version())
    assert len(sums.read_text().splitlines()) == 2
    subprocess.run(["sha256sum", "--check", "--strict", sums.name], cwd=sums.parent, check=True, capture_output=True)
    installed = tmp_path / "installed"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(installed), str(wheel)]
    subprocess.run(pip, check=True)
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    where = [sys.executable, "-c", "import kuma; print(kuma.__file__)"]
    found = subprocess.run(where, env=environment, cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert Path(found.strip()).is_relative_to(installed)
    with Processes(tmp_path) as processes:
        mesh = DemoMesh(tmp_path, processes, programs=installed / "bin")
        mesh.environment |= {"PYTHONPATH": str(installed)}
        _serves_an_envoy(mesh)
    assert (tmp_path / "cp" / "kuma.db").exists()


def _serves_an_envoy(mesh: DemoMesh) -> None:
    mesh.start_control_plane()
    mesh.write_dataplanes()
    mesh.token("backend")
    mesh.start_proxy("backend")
    mesh.kumactl("apply", "-f", str(mesh.write("mesh.yaml", resources.MESH_WITH_MTLS)))
    until("it has a certificate", lambda: mesh.insight("backend-01").get("issuedBackend") == "ca-1", mesh.processes)
