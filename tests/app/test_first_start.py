"""Control planes that start at the same time over a new store make one store of it."""

import asyncio
import contextlib
import json
from datetime import datetime
from pathlib import Path

import pytest

from kuma.app import assembly, stores
from kuma.app.configuration.settings import Settings
from kuma.base import aio
from kuma.base.clock import SystemClock
from kuma.base.errors import Misconfigured
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


class StoppedWhile(SystemClock):
    """A clock that is looked at when something is being stored; then somebody stops the control plane."""

    def __init__(self, write: int) -> None:
        self._writes = write
        self.started: asyncio.Task[None] | None = None

    def now(self) -> datetime:
        current = asyncio.current_task()
        if self.started is not None and current is not self.started:  # what is begun runs to its end beside it
            self._writes -= 1
            if self._writes == 0:
                asyncio.get_running_loop().call_soon(self.started.cancel)
        return super().now()


@pytest.mark.parametrize("write", range(1, 4))
async def test_what_is_being_written_when_it_is_stopped_is_on_record_too(tmp_path: Path, write: int) -> None:
    settings = Settings.model_validate({"general": {"work_dir": tmp_path}}, by_name=True)
    clock = StoppedWhile(write)
    clock.started = aio.spawn(assembly.run(settings, clock), name="control plane")
    with pytest.raises(asyncio.CancelledError):
        await clock.started
    store = await stores.open_store(settings, SystemClock())
    stored = {item.key.name for kind in ("GlobalSecret", "Mesh") for item in (await store.list(kind)).items}
    await store.close()
    recorded = {json.loads(line)["name"] for line in (tmp_path / "audit.jsonl").read_text().splitlines()}
    assert stored
    assert stored <= recorded


@pytest.mark.parametrize("left", ["audit.jsonl", "tls.key"])
async def test_a_store_that_is_lost_with_its_key_and_lock_is_not_replaced_in_silence(tmp_path: Path, left: str) -> None:
    settings = Settings.model_validate({"general": {"work_dir": tmp_path}}, by_name=True)
    async with running(tmp_path):
        pass
    kept = (tmp_path / left).rename(tmp_path / "kept")
    for file in set(tmp_path.iterdir()) - {kept}:
        file.unlink()
    kept.rename(tmp_path / left)
    with pytest.raises(Misconfigured, match=f"{left} is there.*kuma-cp restore FILE.*kuma-cp migrate up --new"):
        await assembly.run(settings, SystemClock())
    with pytest.raises(Misconfigured, match="a control plane that has run here"):
        await stores.migrate(settings, SystemClock(), anew=False)
    assert [file.name for file in tmp_path.iterdir()] == [left]
    await stores.migrate(settings, SystemClock(), anew=True)
    async with running(tmp_path):
        pass


async def test_a_key_that_was_given_is_nothing_that_a_control_plane_has_left(tmp_path: Path) -> None:
    key = tmp_path / "tls.key"
    key.write_bytes(b"given")
    general = {"work_dir": tmp_path, "tls_key_file": key}
    settings = Settings.model_validate({"general": general}, by_name=True)
    await (await stores.open_store(settings, SystemClock())).close()
