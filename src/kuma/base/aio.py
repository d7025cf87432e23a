"""Task life cycles: the one place where tasks are created, supervised and ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import structlog

from kuma.base.errors import ComponentFailed

T = TypeVar("T")
log = structlog.get_logger(__name__)


def spawn(coroutine: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
    """Create a named task. The caller keeps the reference and ends it with `stop`."""
    return asyncio.get_running_loop().create_task(coroutine, name=name)


async def stop(tasks: Iterable[asyncio.Task[Any]], *, patience: float = 5.0) -> None:
    """Cancel `tasks`, wait up to `patience` seconds, and log by name the ones that do not end, or have failed.

    A failure that their owner has looked at already is not told again.
    """
    all_of_them = list(tasks)
    pending = {task for task in all_of_them if not task.done()}
    for task in pending:
        task.cancel()
    if pending:
        _, stuck = await asyncio.wait(pending, timeout=patience)
        for task in stuck:
            log.error("task does not stop", task=task.get_name(), after_seconds=patience)
    for task in all_of_them:
        unseen = getattr(task, "_log_traceback", True)  # asyncio's own mark, by which it would complain
        error = failure(task)
        if error is not None and unseen:
            log.error("task failed", task=task.get_name(), reason=str(error) or type(error).__name__)


def first_done(futures: Iterable[asyncio.Future[Any]]) -> asyncio.Future[None]:
    """Returns what is done once one of these is, whatever has become of it.

    Where thousands wait for as long as a stream: `asyncio.wait` takes a kilobyte to wait in.
    """
    found: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def note(_: asyncio.Future[Any]) -> None:
        if not found.done():
            found.set_result(None)

    for future in futures:
        future.add_done_callback(note)
    return found


def failure(task: asyncio.Task[Any]) -> BaseException | None:
    """Returns the exception that a task has failed with, if it has, and marks it as seen for asyncio."""
    return task.exception() if task.done() and not task.cancelled() else None


class Component(Protocol):
    """A part of a process: its constructor does no I/O, `run` works until it is cancelled."""

    async def run(self) -> None:
        """Work until cancelled. Returning early is a fault."""
        ...


class Running:
    """A component made of a function that works until it is cancelled."""

    def __init__(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._work = work

    async def run(self) -> None:
        """Work until cancelled."""
        await self._work()


async def supervise(components: Iterable[tuple[str, Component]]) -> None:
    """Run all components until cancelled; the first that ends or fails stops the rest.

    Raises:
        ComponentFailed: a component returned although nobody asked it to, or raised (chained).
    """
    tasks = [spawn(component.run(), name=name) for name, component in components]
    ended: list[asyncio.Task[None]] = []
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        ended = [task for task in tasks if task in done]
        cause = failure(ended[0])
        causes = [error for task in ended if (error := failure(task)) is not None]
        raise ComponentFailed(f"{ended[0].get_name()} stopped: {cause or 'it returned'}", causes) from cause
    finally:
        # In reverse, so that what serves is ended before what it stands on.
        for task in reversed([task for task in tasks if task not in ended]):
            await stop([task])


class Latest(Generic[T]):
    """A value that changes: read the newest, or wait for a newer one. Intermediate values may be skipped."""

    def __init__(self, value: T) -> None:
        self._value = value
        self._version = 0
        self._waiters: set[asyncio.Future[None]] = set()

    @property
    def value(self) -> T:
        return self._value

    @property
    def version(self) -> int:
        """Grows by one at each `set`."""
        return self._version

    def set(self, value: T) -> None:
        self._value = value
        self._version += 1
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()

    async def newer_than(self, version: int) -> int:
        """Return the current version once it is above `version`."""
        while self._version <= version:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.add(waiter)
            try:
                await waiter
            finally:
                self._waiters.discard(waiter)
        return self._version


class Event:
    """An `asyncio.Event` for those of whom there are thousands: that one takes most of a kilobyte to wait in."""

    __slots__ = ("_is_set", "_waiters")

    def __init__(self) -> None:
        self._is_set = False
        self._waiters: tuple[asyncio.Future[None], ...] = ()

    def set(self) -> None:
        """Let everybody go on who waits, and who will, until it is cleared."""
        self._is_set = True
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def clear(self) -> None:
        """Let nobody go on until it is set again."""
        self._is_set = False

    async def wait(self) -> None:
        """Return once it is set, or has been meanwhile."""
        if self._is_set:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters = (*self._waiters, waiter)
        try:
            await waiter
        finally:
            self._waiters = tuple(other for other in self._waiters if other is not waiter)


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delays between retries: doubling from `first` to `last` seconds."""

    first: float = 0.5
    last: float = 30.0

    def delay(self, failures: int) -> float:
        """Seconds to wait after the `failures`-th failure in a row (1 is the first)."""
        return float(min(self.last, self.first * 2 ** min(max(failures - 1, 0), 32)))
