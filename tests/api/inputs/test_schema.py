"""The API as a stranger finds it in its OpenAPI document: no request that this allows, or nearly, gives a 500."""

import subprocess
from pathlib import Path

from demo.mesh import DemoMesh
from demo.processes import BIN, Processes


def test_no_request_by_the_document_is_a_server_error(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes:
        mesh = DemoMesh(tmp_path, processes)
        mesh.environment |= {
            "KUMA_API_SERVER_LIMITS_REQUESTS_PER_SECOND": "100000",
            "KUMA_API_SERVER_LIMITS_BURST": "1000000",
        }
        mesh.start_control_plane()
        command = [
            str(BIN / "schemathesis"), "run", f"http://localhost:{mesh.ports.api}/openapi.json",
            "--checks", "not_a_server_error", "--phases", "coverage,fuzzing", "--max-examples", "10", "--no-color",
            "--generation-deterministic", "--continue-on-failure", "--max-time", "20",
        ]  # fmt: skip
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-5000:]
        log = (tmp_path / "kuma-cp.log").read_text()
        assert "Traceback" not in log
        assert "request failed" not in log
