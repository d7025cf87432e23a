"""Questions of many that go to the database together: what is asked while it answers others is its next question."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar

from kuma.base import aio

Question = TypeVar("Question")
Answer = TypeVar("Answer")

_MOST = 200
"""Questions at once: whoever comes next waits for all of them."""


class Grouped(Generic[Question, Answer]):
    """Answers in the order of the questions. One that is asked is answered, even if nobody waits for that any more."""

    def __init__(
        self, answer: Callable[[Sequence[Question]], Awaitable[Sequence[Answer | Exception]]], name: str
    ) -> None:
        """`answer` returns as many answers as it is given questions; what it raises is the answer to all of them."""
        self._answer = answer
        self._name = name
        self._waiting: list[tuple[Question, asyncio.Future[Answer]]] = []
        self._at_hand: list[tuple[Question, asyncio.Future[Answer]]] = []
        self._task: asyncio.Task[None] | None = None

    async def ask(self, question: Question) -> Answer:
        """Returns the answer, which is of after the question."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, future))
        if self._task is None or self._task.done():
            self._task = aio.spawn(self._run(), name=self._name)
        return await future

    @property
    def unanswered(self) -> Sequence[Question]:
        """The questions that wait for their answers."""
        return [question for question, _ in (*self._at_hand, *self._waiting)]

    async def finish(self) -> None:
        """Return once all is answered."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        while self._waiting:
            some, self._waiting = self._waiting[:_MOST], self._waiting[_MOST:]
            self._at_hand = some
            answers: Sequence[Any]
            try:
                answers = await self._answer([question for question, _ in some])
            except Exception as error:
                answers = [error] * len(some)
            for (_, future), answer in zip(some, answers, strict=True):
                if future.done():
                    continue  # nobody waits for it any more
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)
            self._at_hand = []
