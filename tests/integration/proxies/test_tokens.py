"""Proxies whose token no longer holds, and that get another one without a restart."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from kuma.base.tls.trust import NOBODY
from kuma.xds.envoy.services import serving_label
from tests.fakes.clock import ManualClock
from tests.fakes.control_plane import ALLOW_ALL, MTLS, Running, running
from tests.fakes.patience import PATIENCE
from tests.integration.sidecars import Sidecars, sidecars, until
from tests.xds.stream.test_revocation import revocation


@pytest.fixture
def declared() -> tuple[str, ...]:
    return (MTLS, ALLOW_ALL)


async def test_a_new_token_in_the_file_brings_the_stream_back_with_the_same_envoy(
    cp: Running, mesh: Sidecars, tmp_path: Path
) -> None:
    web = await mesh.start("web")
    envoy, file = web.envoy, tmp_path / "web-token"
    await cp.apply_resource(revocation(file.read_text()))

    async def refused() -> bool:
        return not len(cp.parts.proxies)

    await until("the stream has ended", refused)
    file.write_text(cp.token(name="web-01"))
    await cp.settled(1)
    assert web.envoy == envoy
    assert "the token has been replaced" in web.log.read_text()


async def test_an_expired_token_takes_away_no_endpoint(tmp_path: Path) -> None:
    """Callers go on; the certificate goes on; a new token in the file, and all is as before."""
    clock = ManualClock(datetime.now(UTC))
    async with running(tmp_path, clock) as cp, sidecars(cp, tmp_path) as mesh:
        await cp.apply(MTLS, ALLOW_ALL)
        mesh.valid_for = timedelta(hours=1)
        backend = await mesh.start("backend")
        mesh.valid_for = timedelta(days=1)
        web = await mesh.start("web", calls=("backend",))
        await until("web reaches backend", lambda: web.reaches("backend"))
        envoy = backend.envoy
        clock.advance(3600)

        async def is_refused() -> bool:
            async with httpx.AsyncClient(verify=NOBODY, timeout=PATIENCE) as client:
                shown = (await client.get(f"http://127.0.0.1:{await cp.parts.diagnostics.port()}/metrics")).text
            return "xds_streams_refused_total 0.0" not in shown

        await until("backend has come with its expired token", is_refused)
        clock.advance(10)
        await cp.looked_around()
        assert len(cp.parts.proxies) == 1
        assert serving_label.is_serving(cp.parts.views.view("default").dataplanes["backend-01"])
        assert await web.reaches("backend")
        (tmp_path / "backend-token").write_text(cp.token(name="backend-01"))
        await cp.settled(2)
        assert await web.reaches("backend")
        assert backend.envoy == envoy
