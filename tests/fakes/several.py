"""Several control planes over one PostgreSQL in the test's own process, each with a clock of its own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from kuma.app.serving import server_certificate
from kuma.coordination.peers import Peers
from tests.fakes.clock import ManualClock
from tests.fakes.control_plane import Running, running
from tests.fakes.patience import PATIENCE
from tests.fakes.stores import store_settings

_LONG = timedelta(seconds=5)
_BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)


class Several:
    """Control planes whose clocks are a minute apart. Time goes on while something is waited for."""

    def __init__(self, planes: Sequence[Running], clocks: Sequence[ManualClock]) -> None:
        self.planes = list(planes)
        self.clocks = list(clocks)
        self.cut_off: frozenset[int] = frozenset()
        """Those that cannot use the database: they are not waited for."""

    @property
    def coordination(self) -> list[Peers]:
        """What each of them knows of the others."""
        found = [plane.parts.coordination for plane in self.planes]
        return [each for each in found if isinstance(each, Peers)]

    async def until(self, holds: Callable[[], object], *, paused: Sequence[int] = (), step: float = 0.2) -> None:
        """Return once `holds()`; time goes on for all but those who are paused.

        It waits for whoever is slow to say that it is there: on a busy machine nobody is taken to be gone.
        """
        going = [number for number in range(len(self.planes)) if number not in paused]
        async with asyncio.timeout(PATIENCE):
            while not holds():
                if not any(self._misses(number, going) for number in going):
                    for number in going:
                        self.clocks[number].advance(step)
                await asyncio.sleep(0.02)

    def _misses(self, number: int, going: Sequence[int]) -> bool:
        """Tells whether one of them has not heard for long of another who is not paused."""
        if number in self.cut_off:
            return False
        here = {self.coordination[n].own for n in going if n not in self.cut_off}
        now = self.clocks[number].now()
        heard = [each.received for each in self.coordination[number].instances() if each.name in here]
        return any(now - received > _LONG for received in heard)

    async def later(self, seconds: float, *, paused: Sequence[int] = (), step: float = 0.2) -> None:
        """Return once so much time has passed for all but those who are paused."""
        then = [(c, c.monotonic() + seconds) for number, c in enumerate(self.clocks) if number not in paused]
        await self.until(lambda: all(clock.monotonic() >= end for clock, end in then), paused=paused, step=step)

    async def met(self) -> None:
        """Return once all know each other, and the ports, which a first beat may not know yet; and one leads."""
        count = len(self.planes) - 1
        await self.until(lambda: all(len(each.others()) == count for each in self.coordination))
        known = [each.addresses for each in self.coordination]
        await self.until(lambda: not any(address.endswith(":0") for known_to in known for address in known_to()))
        await self.until(lambda: sum(each.leads for each in self.coordination) == 1)

    @property
    def leader(self) -> int:
        """The number of the one that leads."""
        return next(number for number, each in enumerate(self.coordination) if each.leads)


def clocks_apart(count: int) -> list[ManualClock]:
    """So many clocks, each a minute ahead of the one before."""
    return [ManualClock(_BEGINNING + timedelta(minutes=number)) for number in range(count)]


class OneCertificate:
    """The certificate that all control planes show, as those do that belong together."""

    def __init__(self, directory: Path) -> None:
        self._found = server_certificate.ensure(directory, ["localhost"], datetime.now(UTC))

    def general(self, directory: Path) -> dict[str, Any]:
        """The settings with it of a control plane that works in a directory, which is made."""
        directory.mkdir()
        (directory / "ca.crt").write_bytes(self._found.ca.read_bytes())
        files = {"tls_cert_file": self._found.chain, "tls_key_file": self._found.key, "tls_ca_file": self._found.ca}
        return {"work_dir": directory, **files}


@contextlib.asynccontextmanager
async def several(
    address: tuple[str, ...], directory: Path, count: int, certificate: OneCertificate | None = None
) -> AsyncIterator[Several]:
    """So many control planes, until the end of the block; without `certificate` each has one of its own."""
    clocks = clocks_apart(count)
    async with contextlib.AsyncExitStack() as stack:
        planes = []
        for number, clock in enumerate(clocks):
            home = directory / str(number)
            general = certificate.general(home) if certificate is not None else {"work_dir": home}
            plane = running(home, clock, store=store_settings(address), general=general)
            planes.append(await stack.enter_async_context(plane))
        found = Several(planes, clocks)
        await found.met()
        yield found
