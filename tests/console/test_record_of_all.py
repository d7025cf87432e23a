"""The audit page has what every control plane over one store has recorded, and says whose record it has not got."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from kuma.base.clock import Clock
from kuma.base.errors import AccessDenied, Unavailable
from kuma.base.tls.trust import NOBODY
from kuma.console import record
from kuma.console.record import SharedRecord
from kuma.console.sealing import SharedKey
from kuma.console.views import audit
from kuma.console.views.audit import Event
from kuma.coordination.coordination import Instance
from kuma.resources.models.coordination import InstanceSpec
from kuma.store.protocol import Store
from kuma.store.sql.embedded.sqlite import open_sqlite
from tests.fakes.clock import ManualClock
from tests.fakes.control_plane import ALLOW_ALL, Running
from tests.fakes.patience import PATIENCE
from tests.fakes.several import OneCertificate, several

ASK = "/kuma.ControlPlanes/Ask"


async def page(cp: Running, asked: str) -> str:
    async with httpx.AsyncClient(verify=NOBODY, trust_env=False, timeout=PATIENCE) as client:
        answer = await client.get(f"http://localhost:{await cp.api_port()}/gui/audit", params={"q": asked})
        assert answer.status_code == 200
        return answer.text


async def test_the_record_of_each_is_shown_by_all(postgres: tuple[str, ...], tmp_path: Path) -> None:
    async with several(postgres, tmp_path, 2, OneCertificate(tmp_path)) as found:
        for number, plane in enumerate(found.planes):
            await plane.apply(ALLOW_ALL.replace("allow-all", f"made-by-{number}"))
        names = [each.own for each in found.coordination]
        for plane in found.planes:
            shown = await page(plane, "TrafficPermission created")
            assert [shown.count(f"made-by-{number}") for number in (0, 1)] == [1, 1]
            assert all(name in shown for name in names) and 'role="alert"' not in shown
        open_call: Any = (await found.planes[0].channel()).unary_unary
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await open_call(ASK)(b"what have you recorded?")
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
        assert "none of a control plane over the same store" in await page(found.planes[1], "refused questions")


async def test_whose_record_cannot_be_had_is_said(postgres: tuple[str, ...], tmp_path: Path) -> None:
    async with several(postgres, tmp_path, 2) as found:  # they do not know each other's certificates
        here, there = found.coordination
        shown = await page(found.planes[0], "")
        alert = shown.partition('role="alert"')[2]
        assert f"{there.own}: it does not answer" in alert and f"{here.own}:" not in alert


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    found = await open_sqlite(tmp_path / "kuma.db", ManualClock())
    yield found
    await found.close()


def shared(store: Store, clock: Clock, path: Path, ask: record.Ask) -> SharedRecord:
    return SharedRecord(path, SharedKey(store), ask, clock)


async def test_only_fresh_questions_under_the_shared_key_are_answered_and_only_answers_to_them_believed(
    store: Store, tmp_path: Path
) -> None:
    path, clock, late = tmp_path / "audit.jsonl", ManualClock(), ManualClock()
    path.write_text(f'{{"time": "t", "event": "made", "actor": "john", "more": "{"x" * 1000}"}}\n')
    late.advance(timedelta(hours=1).total_seconds())
    seen: list[tuple[bytes, bytes]] = []

    async def nobody(address: str, question: bytes) -> bytes:
        raise Unavailable(f"{address} does not answer")

    there = shared(store, clock, path, nobody)

    async def ask(_: str, question: bytes) -> bytes:
        seen.append((question, await there.answer(question)))
        return seen[0][1]  # a second time what was answered before

    other = Instance("there", InstanceSpec(address="a:1", started=clock.now(), written=clock.now()), False, clock.now())
    here = shared(store, clock, path, ask)
    with pytest.raises(AccessDenied):  # there is no key yet
        await there.answer(b"")
    first, again = [await here.of_others("made", [other]) for _ in range(2)]
    assert first.events == [Event("t", "made", "john", (("more", "x" * 299 + "\u2026"),), "there")]
    assert (again.events, again.missing) == ([], [("there", "it has answered something else than was asked")])
    assert b"made" not in seen[0][0] and b"john" not in seen[0][1]
    with pytest.raises(AccessDenied, match="too old"):
        await shared(store, late, path, nobody).answer(seen[0][0])
    assert (await there.of_others("", [other])).missing == [("there", "a:1 does not answer")]


def test_records_are_merged_by_time_and_each_stays_in_its_order() -> None:
    def event(time: str, name: str, instance: str) -> Event:
        return Event(time, name, "", (), instance)

    own = [event("5", "a", "one"), event("", "torn", "one"), event("6", "set back", "one"), event("1", "b", "one")]
    others = [event("4", "c", "two"), event("2", "d", "two")]
    found = audit.merged(own, others, 5)
    assert [one.event for one in found] == ["a", "torn", "set back", "c", "d"]
    assert audit.told(audit.tellable(found, 10**6), "three") == [one._replace(instance="three") for one in found]
    assert len(audit.tellable(found, 60)) == 2
