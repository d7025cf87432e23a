"""What is stored is on record, whatever becomes of whoever has stored it."""

import asyncio
import contextlib
import json
import resource as limits
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from kuma.base import aio
from kuma.base.audit import AuditFile, Refusals
from kuma.base.clock import SystemClock
from kuma.resources import kinds
from kuma.resources.models.mesh import MeshSpec
from kuma.resources.models.secret import SecretSpec
from kuma.resources.resource import Resource
from kuma.store import audited
from kuma.store.protocol import Commit, Create, Delete, Put, Update
from kuma.store.sql.embedded.sqlite import open_sqlite
from tests.fakes.clock import ManualClock
from tests.fakes.control_plane import MTLS, dataplane, running

MESH = Resource(kinds.MESH.key("m"), MeshSpec())


def secret(name: str) -> Resource[Any]:
    return Resource(kinds.SECRET.key(name, "m"), SecretSpec(data=b"x"))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


async def test_each_change_is_recorded_also_what_goes_with_a_mesh(tmp_path: Path) -> None:
    audit = AuditFile(tmp_path / "audit.jsonl", SystemClock())
    store = await open_sqlite(tmp_path / "kuma.db", SystemClock())
    store.on_commit(audited.recorder(audit))
    mesh, _ = await store.transact([Create(MESH), Create(secret("s"), MESH.key)])
    await store.transact([Update(mesh)])
    await store.transact([Delete(MESH.key)])
    await store.close()
    audit.close()
    found = [(line["event"].removeprefix("resource "), line["name"]) for line in lines(tmp_path / "audit.jsonl")]
    assert found[:3] == [("created", "m"), ("created", "s"), ("updated", "m")]
    assert sorted(found[3:]) == [("deleted", "m"), ("deleted", "s")]


def test_where_versions_do_not_begin_with_one_the_store_says_what_is_new(tmp_path: Path) -> None:
    """As on Kubernetes."""
    audit = AuditFile(tmp_path / "audit.jsonl", SystemClock())
    found = replace(secret("s"), version=4711)
    audited.recorder(audit)(Commit(4711, (Put(found, created=True), Put(found))))
    audit.close()
    assert [line["event"] for line in lines(tmp_path / "audit.jsonl")] == ["resource created", "resource updated"]


async def test_a_change_whose_caller_was_cancelled_is_recorded(tmp_path: Path) -> None:
    audit = AuditFile(tmp_path / "audit.jsonl", SystemClock())
    store = await open_sqlite(tmp_path / "kuma.db", SystemClock())
    store.on_commit(audited.recorder(audit))
    await store.transact([Create(MESH)])
    for number in range(50):
        task = aio.spawn(store.transact([Create(secret(f"s{number}"))]), name="caller")
        await asyncio.sleep(number / 10_000)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    await store.transact([Create(secret("last"))])  # writers have their turns in order
    stored = {found.name for found in (await store.list("Secret")).items}
    await store.close()
    audit.close()
    assert {line["name"] for line in lines(tmp_path / "audit.jsonl")} == {"m", *stored}


async def test_a_kill_loses_no_record_but_perhaps_the_last(tmp_path: Path) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-m", "tests.store.audited_writer", str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    for _ in range(20):
        writer.stdout.readline()
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    recorded = {line["name"] for line in lines(tmp_path / "audit.jsonl")}
    store = await open_sqlite(tmp_path / "kuma.db", SystemClock())
    stored = {found.name for found in (await store.list("Secret")).items}
    await store.close()
    assert len(stored) >= 20
    assert len(stored - recorded) <= 1
    assert recorded <= stored


def test_a_line_that_did_not_fit_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    audit = AuditFile(path, SystemClock())
    audit.record("first")
    soft, hard = limits.getrlimit(limits.RLIMIT_FSIZE)
    limits.setrlimit(limits.RLIMIT_FSIZE, (path.stat().st_size + 20, hard))
    try:
        with capture_logs() as logs:
            audit.record("second", serial="2")
            audit.record("third", serial="3")
    finally:
        limits.setrlimit(limits.RLIMIT_FSIZE, (soft, hard))
    audit.record("fourth")
    audit.close()
    first, torn, gap, fourth = path.read_text().splitlines()
    assert (json.loads(first)["event"], len(torn), json.loads(fourth)["event"]) == ("first", 20, "fourth")
    assert (json.loads(gap)["event"], json.loads(gap)["events"]) == ("not recorded", 2)
    assert [(line["log_level"], line["line"]["serial"]) for line in logs] == [("error", "2"), ("error", "3")]


async def test_a_full_disk_under_the_record_keeps_nobody_from_a_certificate(tmp_path: Path) -> None:
    """The record is the one file that is not written: as on a disk of its own."""
    full = tmp_path / "full.jsonl"
    full.symlink_to("/dev/full")
    web = dataplane("web-01", "web")
    with capture_logs() as logs:
        async with running(tmp_path, general={"work_dir": tmp_path, "audit_file": full}) as cp:
            await cp.apply(MTLS)
            proxy = await cp.proxy(web)
            await proxy.until(lambda: proxy.certificate)
    lost = [line["line"]["event"] for line in logs if line["event"] == "not in the audit record"]
    assert {"resource updated", "certificate issued"} <= set(lost)


@pytest.mark.parametrize("address", ["10.0.0.9", "ipv4:10.0.0.9", "2001:db8::{:x}", "ipv6:%5B2001:db8::{:x}%5D"])
def test_refusals_are_recorded_up_to_a_limit(tmp_path: Path, address: str) -> None:
    """Of IPv6 a whole network, of which one machine has all addresses."""
    clock = ManualClock()
    audit = AuditFile(tmp_path / "audit.jsonl", clock)
    refusals = Refusals(audit, clock)
    for number in range(150):
        refusals.record(address.format(number), status=401)
    clock.advance(1)
    refusals.record(address.format(1), status=401)
    audit.close()
    found = lines(tmp_path / "audit.jsonl")
    assert (len(found), found[-1]["notRecorded"]) == (101, 50)
