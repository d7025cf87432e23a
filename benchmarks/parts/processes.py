"""Other processes of a benchmark: each reads a line, and answers it with a line of JSON."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

PATIENCE = 900.0
"""Seconds; clients that get too little of a machine may never come to the end of their handshakes."""

Answers = Mapping[str, Callable[[], Awaitable[Any] | Any]]


class Unmeasured(Exception):
    """Something did not happen that was to be measured; the text says what, and how far it has come."""


class Process:
    """A process that answers."""

    def __init__(self, process: asyncio.subprocess.Process, what: str) -> None:
        self._process = process
        self._what = what

    async def ask(self, question: str) -> Any:
        """Return the answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(f"{question}\n".encode())
            answer = await asyncio.wait_for(self._process.stdout.readline(), PATIENCE)
        except TimeoutError:
            raise Unmeasured(f"{self._what} has not answered within {PATIENCE:.0f} s: {question}") from None
        if not answer:
            raise Unmeasured(f"{self._what} has ended, and does not answer: {question}")
        return json.loads(answer)

    async def until(
        self, question: str, holds: Callable[[Any], bool], pause: float = 0.1, patience: float = PATIENCE
    ) -> Any:
        """Return the first answer that is as it should be."""

        async def ask() -> Any:
            return await self.ask(question)

        return await until(f"{self._what}: {question}", ask, holds, pause, patience)

    async def kill(self) -> None:
        """Kill it (SIGKILL)."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()


async def until(
    what: str,
    ask: Callable[[], Awaitable[Any]],
    holds: Callable[[Any], bool],
    pause: float = 0.1,
    patience: float = PATIENCE,
) -> Any:
    """Return the first answer that is as it should be.

    Raises:
        Unmeasured: none was, for as long as anybody waits.
    """
    end = time.monotonic() + patience
    while not holds(answer := await ask()):
        if time.monotonic() > end:
            raise Unmeasured(f"{what}: not as it should be after {patience:.0f} s, but {answer}")
        await asyncio.sleep(pause)
    return answer


@contextlib.asynccontextmanager
async def started(module: str, *arguments: object, log: Path | None = None) -> AsyncIterator[Process]:
    """Another process of this package, until the end of the block; what it logs is written to a file, as in service."""
    with contextlib.ExitStack() as stack:
        errors = stack.enter_context(log.open("ab")) if log is not None else None
        pipe = asyncio.subprocess.PIPE
        command = sys.executable, "-m", module, *map(str, arguments)
        quiet = {**os.environ, "GRPC_VERBOSITY": "ERROR"}  # a line for each connection that is lost hides the figures
        process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=errors, env=quiet)
    found = Process(process, module)
    try:
        yield found
    finally:
        await found.kill()


async def answer(answers: Answers) -> None:
    """Answers the questions of who has started this process, until there are none any more."""
    while question := (await asyncio.to_thread(sys.stdin.readline)).strip():
        found = answers[question]()
        print(json.dumps(await found if isinstance(found, Awaitable) else found), flush=True)
