"""A kuma-dp whose machine's clock is not set yet waits for that, and says so."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from kuma.agent import bootstrap_client
from kuma.agent.bootstrap_client import ControlPlaneAddress
from kuma.agent.token_source import TokenSource
from kuma.agent.workload import Workload
from kuma.app.serving import server_certificate
from kuma.base import aio
from tests.fakes.clock import ManualClock
from tests.fakes.patience import PATIENCE


@pytest.mark.parametrize(("days", "fault"), [(40, "not yet valid"), (-20_000, "has expired")])
async def test_it_asks_again_where_only_the_clock_keeps_it_from_trusting(tmp_path: Path, days: int, fault: str) -> None:
    made = server_certificate.ensure(tmp_path, ("localhost",), datetime.now(UTC) + timedelta(days=days))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.chain, made.key)
    server = await asyncio.start_server(lambda _, writer: writer.close(), "localhost", 0, ssl=context)
    clock, port = ManualClock(), server.sockets[0].getsockname()[1]
    address = ControlPlaneAddress(f"https://localhost:{port}", made.ca)
    with capture_logs() as logs:
        asking = aio.spawn(
            bootstrap_client.fetch(address, Workload("default", "web", TokenSource("t")), "1.40.0", clock),
            name="asking",
        )
        async with asyncio.timeout(PATIENCE):
            while not clock.sleepers and not asking.done():
                await asyncio.sleep(0.01)
        assert not asking.done()
        await aio.stop([asking])
    server.close()
    (warning,) = logs
    assert fault in warning["reason"]
    assert "Set the clocks of both right" in warning["reason"]
