"""Starts the workers of a control plane, and another when one has ended or answers no more; ends when all have."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import signal
import socket
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Iterable
from dataclasses import dataclass, field

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge

from kuma.app.workers import sharing
from kuma.app.workers.link import ASKED, BEGIN, HERE, PREPARED, READY, Link
from kuma.app.workers.sharing import Sharing
from kuma.base import aio
from kuma.base.aio import Backoff
from kuma.base.clock import Clock
from kuma.base.errors import KumaError
from kuma.base.system import service_manager

log = structlog.get_logger(__name__)

_BACKOFF = Backoff()
_LONG = 60.0
"""Seconds after which a worker that ends has not failed in a row."""
ROUND = 3.0
"""Seconds after which each worker is asked whether it is there."""
SILENT = 6
"""Questions in a row without an answer after which a worker that serves is killed: sooner than Envoys notice by
themselves (25 seconds), and later than after the longest turn of a loop that has much to do. They are counted, and no
time is measured: whoever was stopped together with this process, as a virtual machine is, has done nothing wrong."""
SILENT_AT_START = 40
"""The same for a worker that does not serve yet: it loads the program, and reads all that is stored."""
_PATIENCE = 25.0
"""Seconds that workers have to end in good order: less than systemd gives to all (TimeoutStopSec in the unit)."""


@dataclass(slots=True)
class Kept:
    """A worker, which may be another process every time."""

    number: int
    process: Process | None = None
    link: Link | None = None
    is_prepared: bool = False
    is_ready: bool = False
    failures: int = field(default=0)
    unanswered: int | None = None
    """Questions in a row that it has not answered; None while there is nobody to ask."""


class Workers:
    """All workers. Until all of them serve, one that ends ends all; from then on another takes its place.

    One that answers no more is killed, and counts as ended.
    """

    def __init__(self, shared: Sharing, clock: Clock, registry: CollectorRegistry) -> None:
        self._shared = shared
        self._clock = clock
        self._kept = [Kept(number) for number in shared.numbers]
        self._may_begin = self._began = self._reloaded = False
        told = "How often a worker has ended, and another has taken its place."
        self._restarts = Counter("worker_restarts", told, ["worker"], registry=registry)
        for number in shared.numbers:
            self._restarts.labels(number)
        told = "How often a worker was killed because it did not answer any more."
        self._killed = Counter("workers_killed", told, ["worker"], registry=registry)
        told = "Questions in a row, one every 3 seconds, that a worker has not answered."
        silent = Gauge("workers_unanswered", told, ["worker"], registry=registry)
        for kept in self._kept:
            self._killed.labels(kept.number)
            silent.labels(kept.number).set_function(functools.partial(_unanswered, kept))
        ready = Gauge("workers_ready", "Workers of this control plane that serve now.", registry=registry)
        ready.set_function(lambda: len(self.ready))

    @property
    def ready(self) -> list[int]:
        """The numbers of those that serve."""
        return [kept.number for kept in self._kept if kept.is_ready]

    @property
    def all_have_begun(self) -> bool:
        """Tells whether there was a moment when all served."""
        return self._began

    def components(self) -> Iterable[tuple[str, aio.Component]]:
        """One for each, and one that asks them whether they are there."""
        keeping = [(f"worker {kept.number}", aio.Running(functools.partial(self._keep, kept))) for kept in self._kept]
        return [*keeping, ("questions to workers", aio.Running(self._ask_all))]

    def reload(self) -> None:
        """Have all of them read the settings again that may change while they run."""
        self._reloaded = True
        for kept in self._kept:
            if kept.is_ready:
                self._signal(kept, signal.SIGHUP)

    async def end(self) -> None:
        """Have all of them end in good order, and return when they have; who does not is killed."""
        processes = [kept.process for kept in self._kept if kept.process is not None]
        for kept in self._kept:
            self._signal(kept, signal.SIGTERM)
        waiting = [aio.spawn(process.wait(), name="end of a worker") for process in processes]
        if waiting:
            _, late = await asyncio.wait(waiting, timeout=_PATIENCE)
            if late:
                log.error("workers that do not end are killed", workers=len(late), after_seconds=_PATIENCE)
        for kept in self._kept:
            self._signal(kept, signal.SIGKILL)
        await asyncio.gather(*waiting)
        for kept in self._kept:
            if kept.link is not None:
                kept.link.close()

    async def _keep(self, kept: Kept) -> None:
        """Have a worker, until cancelled.

        Raises:
            KumaError: it has ended before all served.
        """
        while True:
            since = self._clock.monotonic()
            how = _how(await self._live(kept))
            if not self._began:
                raise KumaError(f"worker {kept.number} of {len(self._kept)} has ended before all were ready: {how}")
            kept.failures = 1 if self._clock.monotonic() - since >= _LONG else kept.failures + 1
            delay = _BACKOFF.delay(kept.failures)
            self._restarts.labels(kept.number).inc()
            log.error("a worker has ended; another takes its place", worker=kept.number, how=how, after_seconds=delay)
            await self._clock.sleep(delay)

    async def _ask_all(self) -> None:
        """Ask all whether they are there, now and again until cancelled; whoever is silent for long is killed."""
        while True:
            await self._clock.sleep(ROUND)
            for kept in self._kept:
                self._ask(kept)

    def _ask(self, kept: Kept) -> None:
        if kept.link is None or kept.unanswered is None:
            return
        if kept.unanswered < (SILENT if kept.is_ready else SILENT_AT_START):
            kept.unanswered += 1
            kept.link.tell(ASKED)
            return
        log.error("a worker does not answer; it is killed", worker=kept.number, questions=kept.unanswered)
        self._killed.labels(kept.number).inc()
        kept.unanswered = None
        self._signal(kept, signal.SIGKILL)

    async def _live(self, kept: Kept) -> int:
        """Returns the status of a worker once it has ended."""
        ours, theirs = socket.socketpair()
        with theirs:
            share = self._shared.share(kept.number, theirs)
            kept.process = await asyncio.create_subprocess_exec(
                *share.command(), stdin=DEVNULL, env=sharing.environment(), pass_fds=share.descriptors()
            )
        kept.link = await Link.over(ours)
        kept.unanswered = 0
        try:
            async for line in kept.link.heard():
                self._hear(kept, line)
            status = await kept.process.wait()
            kept.link.close()
            return status
        finally:
            kept.is_prepared, kept.is_ready, kept.unanswered = False, False, None
            self._signal(kept, signal.SIGTERM)  # unless it has ended; `end` waits for it

    def _hear(self, kept: Kept, line: bytes) -> None:
        if line == PREPARED:
            kept.is_prepared = True
            self._may_begin = self._may_begin or all(each.is_prepared for each in self._kept)
            for each in self._kept:
                if self._may_begin and each.is_prepared and each.link is not None:
                    each.link.tell(BEGIN)
        elif line == HERE:
            kept.unanswered = 0
        elif line == READY:
            kept.is_ready, kept.unanswered = True, 0
            log.info("a worker serves", worker=kept.number, pid=kept.process.pid if kept.process else None)
            if self._reloaded:  # it has begun with the settings of the beginning
                self._signal(kept, signal.SIGHUP)
            if not self._began and all(each.is_ready for each in self._kept):
                self._began = True
                log.info("all workers are ready", workers=len(self._kept))
                service_manager.tell(service_manager.READY)

    @staticmethod
    def _signal(kept: Kept, number: signal.Signals) -> None:
        if kept.process is not None and kept.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                kept.process.send_signal(number)


def _unanswered(kept: Kept) -> int:
    return kept.unanswered or 0


def _how(status: int) -> str:
    return f"status {status}" if status >= 0 else f"killed by {signal.Signals(-status).name}"
