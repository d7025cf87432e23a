"""What a controller has to look at comes when it changes, and again after it has failed."""

from __future__ import annotations

import asyncio

from kuma.base import aio
from kuma.kubernetes.controllers.due import Due
from tests.fakes.patience import PATIENCE


async def test_what_changes_meanwhile_comes_together_and_once() -> None:
    due = Due[str](aio.Backoff())
    due.add(["a", "b"])
    due.add(["a"])
    assert await due.taken() == {"a", "b"}
    waits = aio.spawn(due.taken(), name="controller")
    due.add(["c"])
    assert await waits == {"c"}


async def test_what_failed_comes_again_until_it_is_settled() -> None:
    due = Due[str](aio.Backoff(first=0.0, last=0.0))
    assert due.failed("a") == 1
    async with asyncio.timeout(PATIENCE):
        assert await due.taken() == {"a"}
    assert due.failed("a") == 2
    due.settled("a")
    assert due.failed("a") == 1
    due.settled("a")
    due.add(["b"])
    assert await due.taken() == {"b"}


async def test_what_has_changed_does_not_wait_for_what_has_failed() -> None:
    due = Due[str](aio.Backoff(first=10 * PATIENCE, last=10 * PATIENCE))
    due.failed("a")
    due.add(["b"])
    async with asyncio.timeout(PATIENCE):
        assert await due.taken() == {"b"}
