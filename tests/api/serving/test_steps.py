"""Steps around requests: what they may do, and that they hold no answer up."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from fastapi import FastAPI, Request, Response
from fastapi.responses import PlainTextResponse, StreamingResponse

from kuma.api.http import errors, steps
from kuma.api.http.steps import Proceed
from kuma.base import aio


def app_with(*around: steps.Step) -> FastAPI:
    app = FastAPI()

    @app.get("/")
    async def answer() -> PlainTextResponse:
        return PlainTextResponse("answered", 202)

    @app.get("/broken")
    async def broken() -> StreamingResponse:
        async def some() -> object:
            yield b"some"
            raise RuntimeError("in the middle")

        return StreamingResponse(some())  # type: ignore[arg-type]

    for step in around:
        steps.install(app, step)
    return app


def client(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost")


async def passes(_: Request, proceed: Proceed) -> Response | None:
    await proceed()
    return None


async def refuses(_: Request, __: Proceed) -> Response | None:
    return PlainTextResponse("refused", 403)


async def turns(app: FastAPI) -> int:
    """Turns of the loop that the answer to a request takes."""
    count = 0

    async def tick() -> None:
        nonlocal count
        while True:
            count += 1
            await asyncio.sleep(0)

    async with client(app) as asked:
        await asked.get("/")  # what is made at the first request is there
        ticking = aio.spawn(tick(), name="counting turns")
        await asyncio.sleep(0)
        before = count
        assert (await asked.get("/")).text == "answered"
        after = count
        await aio.stop([ticking])
    return after - before


async def test_no_step_makes_an_answer_wait_for_a_turn_of_the_loop() -> None:
    assert await turns(app_with(passes, passes, passes, passes)) == await turns(app_with())


async def test_a_step_is_told_the_status_before_anything_is_sent_and_may_answer_itself() -> None:
    told: list[int] = []

    async def looks(_: Request, proceed: Proceed) -> Response | None:
        await proceed(told.append)
        return None

    async with client(app_with(looks)) as asked:
        assert (await asked.get("/")).status_code == 202
    async with client(app_with(refuses, looks)) as asked:
        assert (await asked.get("/")).text == "refused"
    assert told == [202, 403]


async def test_an_answer_that_breaks_off_is_not_followed_by_another() -> None:
    app = app_with()
    errors.install(app)
    async with client(app) as asked:
        with pytest.raises(RuntimeError, match="in the middle"):
            await asked.get("/broken")
