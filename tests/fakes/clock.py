"""A clock that moves only when a test moves it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta


class ManualClock:
    """Starts at a fixed instant; `advance` moves it and wakes whoever slept that long."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._start = start
        self._passed = timedelta()
        self._set_by = timedelta()
        self._sleepers: list[tuple[timedelta, asyncio.Future[None], str]] = []

    def now(self) -> datetime:
        return self._start + self._passed + self._set_by

    def monotonic(self) -> float:
        return self._passed.total_seconds()

    def jump(self, seconds: float) -> None:
        """Set the clock: no time passes."""
        self._set_by += timedelta(seconds=seconds)

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        task = asyncio.current_task()
        name = task.get_name() if task else ""
        self._sleepers.append((self._passed + timedelta(seconds=seconds), future, name))
        await future

    @property
    def sleepers(self) -> int:
        """How many coroutines wait for this clock."""
        return sum(not future.done() for _, future, _ in self._sleepers)

    def is_waited_for_by(self, task: str) -> bool:
        """Tell whether the task of this name waits for this clock."""
        return any(name == task and not future.done() for _, future, name in self._sleepers)

    def advance_to_next(self, within: float) -> None:
        """Move to when the next sleeper is due, if that is at most `within` seconds from now."""
        due = [time for time, future, _ in self._sleepers if not future.done()]
        seconds = (min(due) - self._passed).total_seconds() if due else within + 1
        if seconds <= within:
            self.advance(seconds)

    def advance(self, seconds: float) -> None:
        self._passed += timedelta(seconds=seconds)
        due = [entry for entry in self._sleepers if entry[0] <= self._passed]
        self._sleepers = [entry for entry in self._sleepers if entry[0] > self._passed]
        for _, future, _ in due:
            if not future.done():
                future.set_result(None)
