"""Steps around every request, such as finding out who sends it.

Starlette's own (`BaseHTTPMiddleware`) has a task and two queues for each step, and passes every answer through. Each
waits for several turns of the loop, which are long while a control plane is busy with its proxies.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from fastapi import FastAPI, Request, Response

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]
_App = Callable[[MutableMapping[str, Any], _Receive, _Send], Awaitable[None]]


class Proceed:
    """Has the request answered by what the step surrounds."""

    def __init__(self, app: _App, request: Request, send: _Send) -> None:
        self._app = app
        self._request = request
        self._send = send
        self._on_answer: Callable[[int], None] = lambda _: None
        self.has_begun = False
        """Whether some of the answer is on its way: there can be no other any more."""

    async def __call__(self, on_answer: Callable[[int], None] = lambda _: None) -> None:
        """Answer it; `on_answer` is told the status before anything is sent."""
        self._on_answer = on_answer
        await self._app(self._request.scope, self._request.receive, self._pass_on)

    async def _pass_on(self, message: _Message) -> None:
        if message["type"] == "http.response.start":
            self._on_answer(message["status"])
            self.has_begun = True
        await self._send(message)


Step = Callable[[Request, Proceed], Awaitable[Response | None]]
"""Proceeds and returns None, or returns an answer of its own without."""


class _Around:
    def __init__(self, app: _App, step: Step) -> None:
        self._app = app
        self._step = step

    async def __call__(self, scope: MutableMapping[str, Any], receive: _Receive, send: _Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        answer = await self._step(request, Proceed(self._app, request, send))
        if answer is not None:
            await answer(scope, receive, send)


def install(app: FastAPI, step: Step) -> None:
    """Surround every request of `app`, and the steps that it has already."""
    app.add_middleware(_Around, step=step)
