"""The inbound of a workload that speaks first, as callers with a certificate of the test's choice see it."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from pathlib import Path

from kuma.authorities import builtin
from kuma.base.clock import SystemClock
from kuma.pki.authority import LocalAuthority
from kuma.resources.models.mesh import Conf
from tests.integration.clients import in_the_mesh, with_leaf_of, without_certificate
from tests.integration.sidecars import Reader, Sidecar, Writer, exchange

GREETING = b"220 at your service\r\n"
WEB, EVIL, DEV = "spiffe://default/web", "spiffe://default/evil", "kuma://env/dev"
PROD = "kuma://env/prod"


async def other_authority() -> LocalAuthority:
    """One of no mesh here."""
    return LocalAuthority("other", await builtin.create_root("default", Conf(), SystemClock()))


class Door:
    """The inbound of a workload that greets."""

    def __init__(self, own: LocalAuthority, workload: Sidecar, directory: Path, other: LocalAuthority) -> None:
        self.own = own
        """The authority of callers of the mesh."""
        self._other, self._workload, self._directory = other, workload, directory
        self._open = contextlib.AsyncExitStack()

    async def connect(self) -> tuple[Reader, Writer]:
        """A TCP connection that is kept until the end."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._workload.port)
        self._open.callback(writer.close)
        return reader, writer

    async def half_a_handshake(self) -> None:
        """A caller that has said hello, got the server's answer, and goes no further."""
        said, heard = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = in_the_mesh(without_certificate()).wrap_bio(heard, said)
        with contextlib.suppress(ssl.SSLWantReadError):
            client.do_handshake()
        reader, writer = await self.connect()
        writer.write(said.read())
        assert await reader.read(100)

    async def hears(self, *uris: str, says: bytes = b"") -> bytes:
        """What a caller of the mesh hears first."""
        context = await with_leaf_of(self.own, self._directory, *uris)
        return await exchange(self._workload.port, says, in_the_mesh(context))

    async def is_shut(self, *refused: tuple[str, ...], plaintext: bool = True) -> None:
        """Have everybody call who is not let in: strangers, and those whose certificates say what is `refused`.

        If `plaintext` is shut out, too, also somebody who says nothing at all.
        """
        if plaintext:
            await self.connect()
        await self.half_a_handshake()
        strangers = [
            without_certificate(),
            await with_leaf_of(self._other, self._directory, WEB),
            await with_leaf_of(self.own, self._directory, WEB, expired=True),
        ]
        for said in (b"", b"hello"):
            for context in strangers:
                assert await exchange(self._workload.port, said, in_the_mesh(context)) == b""
            for uris in refused:
                assert await self.hears(*uris, says=said) == b"", uris

    async def close(self) -> None:
        await self._open.aclose()
