"""Long work leaves threads to everybody else."""

from __future__ import annotations

import asyncio
import threading

from kuma.base import aio
from kuma.base.long_work import one_by_one
from tests.fakes.patience import PATIENCE


async def test_however_much_long_work_there_is_a_thread_is_left_for_what_is_short() -> None:
    done, begun, counting = threading.Event(), list[str](), threading.Lock()

    def last(name: str) -> str:
        with counting:
            begun.append(name)
        assert done.wait(PATIENCE)
        return name

    expected = [str(index) for index in range(50)]
    tasks = [aio.spawn(one_by_one(last, name), name="long work") for name in expected]
    try:
        while not begun:
            await asyncio.sleep(0)
        assert await asyncio.to_thread(lambda: "short") == "short"
        assert begun == ["0"]
    finally:
        done.set()
    assert await asyncio.gather(*tasks) == expected
    assert begun == expected
