"""Proxies whose token no longer holds, and that get another one without a restart."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.control_plane import ALLOW_ALL, MTLS, Running
from tests.integration.sidecars import Sidecars, until
from tests.xds.test_revocation import revocation


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
