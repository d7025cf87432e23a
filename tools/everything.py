"""A host's workloads: HTTP that tells what it was sent, and a server that speaks first.

Usage: everything.py HTTP_PORTS GREETING_PORT
"""

import asyncio
import sys


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Tells who has connected, and the head of the request."""
    head = await reader.readuntil(b"\r\n\r\n")
    body = f"from {writer.get_extra_info('peername')[0]}\n{head.decode()}".encode()
    writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
    await writer.drain()
    writer.close()


async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Speaks first, and says no more."""
    writer.write(b"hello\n")
    await writer.drain()
    writer.close()


async def main(http: str, greeting: str) -> None:
    """Serve at all addresses, until ended."""
    servers = [await asyncio.start_server(answer, None, int(port)) for port in http.split(",")]
    servers.append(await asyncio.start_server(greet, None, int(greeting)))
    print("ready", flush=True)
    await asyncio.gather(*(server.serve_forever() for server in servers))


asyncio.run(main(*sys.argv[1:]))
