"""Control planes that start at the same time over a new store make one store of it."""

import asyncio
import contextlib
from pathlib import Path

from kuma.resources import kinds
from tests.fakes.control_plane import MTLS, running
from tests.fakes.stores import store_settings

MADE_AT_THE_FIRST_START = {kinds.CLUSTER_ID, kinds.MESH.key("default")}


async def test_what_one_has_made_no_other_one_makes_anew(postgres: tuple[str, ...], tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        starts = [running(tmp_path / str(number), store=store_settings(postgres)) for number in range(3)]
        first, *_ = await asyncio.gather(*map(stack.enter_async_context, starts))
        for key in MADE_AT_THE_FIRST_START:
            assert (await first.parts.manager.get(key)).version == 1
        await first.apply(MTLS)
        changed = await first.parts.manager.get(kinds.MESH.key("default"))
        async with running(tmp_path / "later", store=store_settings(postgres)) as later:
            assert await later.parts.manager.get(kinds.MESH.key("default")) == changed
