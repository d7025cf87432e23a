"""Passes TCP connections on to the first of several hosts that takes them: in the place of the control plane's Service.

Usage: service.py HOST TARGET,TARGET PORT,PORT
"""

import asyncio
import contextlib
import sys


async def passed_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Passes bytes on until their sender has no more."""
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def main(host: str, targets: str, ports: str) -> None:
    """Serve until ended."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port = writer.get_extra_info("sockname")[1]
        for target in targets.split(","):
            with contextlib.suppress(OSError):
                answers, asks = await asyncio.open_connection(target, port)
                await asyncio.gather(passed_on(reader, asks), passed_on(answers, writer))
                return
        writer.close()

    servers = [await asyncio.start_server(connected, host, int(port)) for port in ports.split(",")]
    await asyncio.gather(*(server.serve_forever() for server in servers))


asyncio.run(main(*sys.argv[1:]))
