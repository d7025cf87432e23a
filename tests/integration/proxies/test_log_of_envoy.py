"""What Envoy logs, and whoever does not read it."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

from tests.fakes.control_plane import ALLOW_ALL, MTLS, running
from tests.integration.sidecars import Sidecars, until

CALLS = 40
"""An Envoy that logs everything says more about them than a pipe holds."""


async def test_a_log_that_nobody_reads_holds_up_no_proxy(tmp_path: Path) -> None:
    """Nor does a kuma-dp that is stopped, which passes on what Envoy logs; and Envoy is not silent afterwards."""
    path = tmp_path / "web.log"
    os.mkfifo(path)
    log = os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    def read() -> bytes:
        with contextlib.suppress(BlockingIOError):
            return os.read(log, 1 << 20)
        return b""

    async with running(tmp_path) as cp:
        await cp.apply(MTLS, ALLOW_ALL)
        mesh = Sidecars(cp, tmp_path)
        mesh.options = ("--envoy-log-level=debug",)
        try:
            web = await mesh.start("web", calls=("web",))
            await until("web reaches itself", lambda: web.reaches("web"))
            assert [await web.call("web") for _ in range(CALLS)] == [200] * CALLS
            os.kill(web.running.pid, signal.SIGSTOP)
            assert [await web.call("web") for _ in range(CALLS)] == [200] * CALLS
            os.kill(web.running.pid, signal.SIGCONT)

            async def told() -> bool:
                await web.call("web", "x-told: by envoy\r\n")
                return b"by envoy" in read()

            await until("Envoy's log goes on", told)
        finally:
            await mesh.close()
    os.close(log)
