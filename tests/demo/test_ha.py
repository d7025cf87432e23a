"""Three control planes, whose clocks differ, are killed in turn in every kind of change, and no request fails."""

import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo import resources
from demo.mesh import Unanswered, get
from demo.postgres import Postgres
from demo.processes import Failed, Processes, until
from demo.several import COUNT, SeveralControlPlanes
from demo.traffic import Traffic
from tests.integration.sidecars import BETWEEN_CALLS

OFF = "type: Mesh\nname: default\n"
PERMISSIVE = resources.MESH_WITH_MTLS.replace("type: builtin", "type: builtin\n      mode: PERMISSIVE")
CHANGES = (
    (resources.MESH_WITH_ANOTHER_CA, "STRICT with builtin/ca-2"),
    (OFF, "mutual TLS off"),
    (PERMISSIVE, "PERMISSIVE with builtin/ca-1"),
    (resources.MESH_WITH_MTLS, "STRICT with builtin/ca-1"),
)
"""Every kind of staged change, each with what it leads to."""

CLOCKS = (0, 60, -60)
"""Seconds by which the clock of each control plane is ahead of the Envoys'."""
SHARED = Path("/dev/shm")
"""Where libfaketime shares memory between threads and processes."""


def clock(seconds: int) -> dict[str, str]:
    """The environment of a process whose clock is ahead, as faketime(1) does it; how long it waits stays as it is."""
    (library,) = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
    return {"LD_PRELOAD": str(library), "FAKETIME": f"{seconds:+}s", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


def reached(mesh: SeveralControlPlanes, goal: str) -> bool:
    try:
        _, found = get(f"http://127.0.0.1:{mesh.ports.api}/meshes/default/mesh-transitions/default")
    except Unanswered:
        return False
    return bool(found.get("complete")) and found.get("goal") == goal


def differences(mesh: SeveralControlPlanes) -> list[float]:
    """How far each clock is ahead of the one that is most behind, as whoever answers sees it, to ten seconds."""
    found = sorted(each["clockDifferenceSeconds"] for each in mesh.instances())
    return [round(each - found[0], -1) for each in found]


def sealed_anew(mesh: SeveralControlPlanes) -> bool:
    try:
        mesh.kumactl("rekey")
    except Failed as error:
        assert "not all control planes have the next key yet" in str(error)
        return False
    return True


@pytest.fixture
def clocks() -> Iterator[list[dict[str, str]]]:
    """Environments of processes whose clocks differ. Of one that is killed, memory that it shared would stay."""
    before = set(SHARED.glob("*faketime_*"))
    yield [clock(seconds) for seconds in CLOCKS]
    for left in set(SHARED.glob("*faketime_*")) - before:
        left.unlink(missing_ok=True)


@pytest.fixture
def mesh(postgres_instance: Postgres, clocks: list[dict[str, str]], tmp_path: Path) -> Iterator[SeveralControlPlanes]:
    with Processes(tmp_path) as processes:
        found = SeveralControlPlanes(tmp_path, processes, postgres_instance, clocks)
        found.start_control_plane()
        until("all are there", lambda: len(found.instances()) == COUNT and found.leader() is not None, processes)
        found.start_workloads()
        found.write_dataplanes()
        for service in ("backend", "web"):
            found.token(service)
            found.start_proxy(service)
        found.kumactl(
            "apply", "-f", str(found.write("all.yaml", f"{resources.MESH_WITH_MTLS}---\n{resources.ALLOW_ALL}"))
        )
        until("mutual TLS is on", lambda: reached(found, "STRICT with builtin/ca-1"), processes)
        until("web reaches backend", lambda: found.call()[0] == 200, processes)
        yield found


def test_no_request_fails_whoever_is_killed_during_whatever_change(mesh: SeveralControlPlanes) -> None:
    until("the clocks differ", lambda: differences(mesh) == [0, 60, 120], mesh.processes)
    first = mesh.leader()
    assert first is not None
    load = Traffic(mesh.web_tcp_out, threads=2, pause=BETWEEN_CALLS)
    mesh.prepare_key()
    until("all have the next key, and it is used", functools.partial(sealed_anew, mesh), mesh.processes)
    for number, (text, goal) in enumerate(CHANGES):
        victim = (first + number) % COUNT
        mesh.kumactl("apply", "-f", str(mesh.write("mesh.yaml", text)))
        mesh.kill(victim)
        until(f"{goal}, without control plane {victim}", functools.partial(reached, mesh, goal), mesh.processes)
        mesh.start_instance(victim)
    load.stop()
    assert load.failed == 0, load.answers
    assert load.answers.total() > 100
    until("all are there again", lambda: len(mesh.instances()) == COUNT, mesh.processes)
