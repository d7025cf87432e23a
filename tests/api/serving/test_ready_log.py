"""What is said once a control plane is ready, and not before."""

from __future__ import annotations

from pathlib import Path

import structlog

from tests.fakes.control_plane import running


async def test_it_is_said_once_with_where_everything_is(tmp_path: Path) -> None:
    with structlog.testing.capture_logs() as logs:
        async with running(tmp_path) as cp:
            api, dp = cp.parts.api["API server"], cp.parts.dp
            for server in (api, dp, cp.parts.diagnostics):
                await server.port()
            await cp.parts.xds.port()
            expected = {
                "api": f"http://localhost:{await api.port()}",
                "bootstrap": f"https://localhost:{await dp.port()}",
                "work_dir": str(tmp_path),
                "ca": str(tmp_path / "ca.crt"),
            }
            await cp.apply("{type: Mesh, name: other}")  # something that takes a moment
    (said,) = [line for line in logs if line["event"] == "ready"]
    assert {name: said[name] for name in expected} == expected
