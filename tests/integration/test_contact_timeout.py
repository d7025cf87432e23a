"""Proxies whose control plane is gone."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from kuma.agent.envoy import OUT_OF_CONTACT
from tests.fakes.control_plane import ALLOW_ALL, MTLS, running
from tests.integration.sidecars import Sidecars, until


async def test_a_proxy_serves_no_longer_without_the_control_plane_than_it_may(tmp_path: Path) -> None:
    """Without a limit it goes on."""
    async with running(tmp_path) as cp:
        await cp.apply(MTLS, ALLOW_ALL)
        mesh = Sidecars(cp, tmp_path)
        web = await mesh.start("web", calls=("backend",), protocol="tcp")
        mesh.options = ("--contact-timeout=20s",)
        backend = await mesh.start("backend", protocol="tcp")
        await until("web reaches backend", lambda: web.reaches("backend"))
    try:
        assert await web.talk("backend") == b"backend:hello"
        assert await backend.running.wait() == OUT_OF_CONTACT
        assert "out of contact for too long" in backend.log.read_text()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", backend.port)
        assert web.running.returncode is None
    finally:
        await mesh.close()
