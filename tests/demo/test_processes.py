"""The processes of the demo, started from a program that speaks gRPC itself, as the tests are."""

import sys
from pathlib import Path

import grpc.aio

from demo.processes import Processes
from tests.fakes.patience import PATIENCE


async def test_what_is_started_beside_a_running_grpc_server_runs(tmp_path: Path) -> None:
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        await channel.channel_ready()
        with Processes(tmp_path) as processes:
            started = [processes.start("program", [sys.executable, "-S", "-c", ""], {}) for _ in range(200)]
            for process in started:
                processes.forget(process)
            assert [process.wait(PATIENCE) for process in started] == [0] * len(started), processes.tail("program")
    await server.stop(None)
