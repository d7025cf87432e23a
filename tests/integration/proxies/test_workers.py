"""`kuma-cp run --workers 2`: two processes at one port over one PostgreSQL, with real Envoys under load."""

from __future__ import annotations

import functools
import json
import os
import secrets
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from demo import resources
from demo.link import Address, Link
from demo.mesh import DemoMesh, Unanswered, get, read
from demo.postgres import Postgres
from demo.processes import BIN, PATIENCE, Failed, Processes, until
from demo.traffic import Traffic
from kuma.base.system import service_manager
from tests.integration.sidecars import BETWEEN_CALLS, children_of

NUMBERS = (1, 2)
CHANGES = {1: (resources.MESH_WITH_ANOTHER_CA, "builtin/ca-2"), 2: (resources.MESH_WITH_MTLS, "builtin/ca-1")}
"""What changes while a worker is killed, by its number, and what that leads to."""


class Workers(DemoMesh):
    """The demo's mesh, whose control plane has two workers."""

    def __init__(self, home: Path, processes: Processes, database: Postgres, name: str) -> None:
        super().__init__(home, processes)
        self.file = self.write("kuma-cp.yaml", "general: {logLevel: info}")
        self.to_database = Link(("127.0.0.1", 0), ("127.0.0.1", database.port))
        settings = database.settings(database.create(name))
        self.store = {**settings, "KUMA_STORE_POSTGRES_PORT": str(self.to_database.port)}
        self.told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.told.bind(str(home / "notify"))
        self.told.settimeout(PATIENCE)

    def start_control_plane(self) -> subprocess.Popen[bytes]:
        """Start it under a service manager, until it is said to be ready."""
        environment = {**self.environment, **self.store, "KUMA_GENERAL_WORKERS": "3"}  # which the option overrides
        subprocess.run([BIN / "kuma-cp", "migrate", "up"], env=environment, check=True, capture_output=True)
        command: list[str | Path] = [BIN / "kuma-cp", "run", "--workers", "2", "-c", self.file]
        told = {"NOTIFY_SOCKET": str(self.home / "notify")}
        self.parent = self.processes.start("kuma-cp", command, {**environment, **told})
        assert self.told.recv(100).decode() == service_manager.READY, self.log
        address = f"http://localhost:{self.ports.api}"
        self.kumactl("config", "control-planes", "add", "--name", "demo", "--address", address, "--overwrite")
        return self.parent

    @property
    def log(self) -> str:
        return self.processes.tail("kuma-cp", 10_000)

    def pids(self) -> Mapping[int, int]:
        """The process of each worker that there is."""
        found = {}
        for child in children_of(self.parent.pid):
            *_, last, _ = Path(f"/proc/{child}/cmdline").read_text().split("\0")
            found[json.loads(last)["number"]] = child
        return found

    def metrics(self, name: str) -> dict[int, float]:
        """What each worker says of itself."""
        _, body = read(f"http://127.0.0.1:{self.ports.diagnostics}/metrics")
        lines = [line for line in body.decode().splitlines() if line.startswith(f'{name}{{worker="')]
        return {int(line.split('"')[1]): float(line.rpartition(" ")[2]) for line in lines}

    def answer(self, path: str) -> int:
        """The status that the diagnostics answer."""
        return get(f"http://127.0.0.1:{self.ports.diagnostics}{path}")[0]

    def instances(self) -> list[dict[str, Any]]:
        """Who is there, as somebody tells it who is one of them."""
        _, found = get(f"http://127.0.0.1:{self.ports.api}/control-planes")
        return list(found["items"])

    def start_all(self) -> None:
        """Two workloads and their proxies, in a mesh with mutual TLS, until one reaches the other."""
        self.start_workloads()
        self.write_dataplanes()
        for service in ("backend", "web"):
            self.token(service)
            self.start_proxy(service)
        everything = f"{resources.MESH_WITH_MTLS}---\n{resources.ALLOW_ALL}"
        self.kumactl("apply", "-f", str(self.write("all.yaml", everything)))
        until("mutual TLS is on", lambda: self.reached("builtin/ca-1"), self.processes)
        until("web reaches backend", lambda: self.call()[0] == 200, self.processes)

    def change(self, text: str) -> None:
        """Change the Mesh; who is told to wait, by a worker that is in trouble, tries it again as any client."""
        path = str(self.write("mesh.yaml", text))
        until("the change is stored", lambda: self._applied(path), self.processes)

    def _applied(self, path: str) -> bool:
        try:
            self.kumactl("apply", "-f", path)
        except Failed:
            return False
        return True

    def reached(self, goal: str) -> bool:
        """Whether a staged change is complete."""
        try:
            _, found = get(f"http://127.0.0.1:{self.ports.api}/meshes/default/mesh-transitions/default")
        except Unanswered:
            return False
        return bool(found.get("complete")) and str(found.get("goal", "")).endswith(goal)


@pytest.fixture
def mesh(postgres_instance: Postgres, tmp_path: Path) -> Iterator[Workers]:
    with Processes(tmp_path) as processes:
        found = Workers(tmp_path, processes, postgres_instance, f"workers_{secrets.token_hex(4)}")
        with found.told:
            found.start_control_plane()
            yield found


def test_two_workers_act_as_one_and_either_may_be_killed(mesh: Workers) -> None:
    mesh.start_all()
    _both_are_there_and_answer_alike(mesh)
    load = Traffic(mesh.web_tcp_out, threads=2, pause=BETWEEN_CALLS)
    for victim, (text, goal) in CHANGES.items():
        before = mesh.pids()
        mesh.kumactl("apply", "-f", str(mesh.write("mesh.yaml", text)))
        os.kill(before[victim], signal.SIGKILL)
        until("the other serves all", functools.partial(_serves_all, mesh, 3 - victim), mesh.processes)
        until("there are two again", functools.partial(_is_back, mesh, victim), mesh.processes)
        until(f"{goal} is reached", functools.partial(mesh.reached, goal), mesh.processes)
        assert mesh.pids()[victim] != before[victim]
        assert mesh.pids()[3 - victim] == before[3 - victim]
    load.stop()
    assert load.failed == 0, load.answers
    assert load.answers.total() > 100
    assert mesh.log.count("a worker has ended; another takes its place") == len(CHANGES)
    _reloads(mesh)
    _ends(mesh)


def _serves_all(mesh: Workers, number: int) -> bool:
    return mesh.metrics("kuma_xds_streams_active").get(number) == 2


def _is_back(mesh: Workers, number: int) -> bool:
    restarts = mesh.metrics("kuma_worker_restarts_total")
    return restarts[number] == 1 and len(mesh.metrics("kuma_xds_streams_active")) == 2 and mesh.answer("/ready") == 200


def _both_are_there_and_answer_alike(mesh: Workers) -> None:
    until("both know each other", lambda: len(mesh.instances()) == 2, mesh.processes)
    first, second = mesh.instances()
    assert first["name"].rpartition("-")[0].endswith("-w1")
    assert second["name"].rpartition("-")[0].endswith("-w2")
    assert first["address"] == second["address"] == f"127.0.0.1:{mesh.ports.xds}"
    assert sum(each["proxies"] for each in mesh.instances()) <= 2
    told: dict[str, set[bytes]] = {}
    while len(told) < len(NUMBERS):
        told.setdefault(_answering(mesh), set()).add(read(f"http://127.0.0.1:{mesh.ports.api}/meshes")[1])
    assert len(set.union(*told.values())) == 1
    assert (mesh.answer("/ready"), mesh.answer("/healthy"), mesh.answer("/store")) == (200, 200, 404)
    streams = mesh.metrics("kuma_xds_streams_active")
    assert (set(streams), sum(streams.values())) == (set(NUMBERS), 2)
    assert read(f"http://127.0.0.1:{mesh.ports.diagnostics}/metrics")[1].count(b"# TYPE kuma_xds_streams_active ") == 1


def _answering(mesh: Workers) -> str:
    (name,) = (each["name"] for each in mesh.instances() if each["answers"])
    return str(name)


def _reloads(mesh: Workers) -> None:
    """The parent and both workers, one of which has begun with a copy of the settings, take up the file."""
    mesh.file.write_text("{general: {logFormat: json}, xdsServer: {transitionAbsence: 20s}}")
    mesh.parent.send_signal(signal.SIGHUP)
    until("all have read it", lambda: mesh.log.count("the settings have been read again") == 3, mesh.processes)
    waiting = [json.loads(line) for line in mesh.log.splitlines() if "at the next start only" in line]
    assert [each["settings"] for each in waiting] == [["xdsServer.transitionAbsence"]] * 3
    assert {each.get("worker") for each in waiting} == {None, *NUMBERS}


def _ends(mesh: Workers) -> None:
    pids = mesh.pids()
    mesh.processes.forget(mesh.parent)
    mesh.parent.send_signal(signal.SIGTERM)
    assert mesh.told.recv(100).decode() == service_manager.STOPPING
    assert mesh.parent.wait(PATIENCE) == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids.values())
    assert [json.loads(line).get("worker") for line in mesh.log.splitlines()[-3:]][-1] is None
    assert mesh.log.count('"event": "stopped"') == 3
    assert "Traceback" not in mesh.log
    assert "is gone" not in mesh.log


def test_no_request_fails_while_a_worker_is_stopped_nor_while_one_alone_is_cut_off_from_the_database(
    mesh: Workers,
) -> None:
    mesh.start_all()
    load = Traffic(mesh.web_tcp_out, threads=2, pause=BETWEEN_CALLS)
    stopped, process = _most_loaded(mesh)
    os.kill(process, signal.SIGSTOP)
    mesh.change(resources.MESH_WITH_ANOTHER_CA)
    until("builtin/ca-2 is reached", lambda: mesh.reached("builtin/ca-2"), mesh.processes)
    until("there are two again", functools.partial(_is_back, mesh, stopped), mesh.processes)
    assert mesh.metrics("kuma_workers_killed_total") == {stopped: 1, 3 - stopped: 0}
    alone, process = _most_loaded(mesh)
    mesh.to_database.cut(lambda client: _is_of(process, client))
    mesh.change(resources.MESH_WITH_MTLS)
    until("the other serves all", functools.partial(_serves_all, mesh, 3 - alone), mesh.processes)
    until("builtin/ca-1 is reached", lambda: mesh.reached("builtin/ca-1"), mesh.processes)
    mesh.to_database.mend()
    until("both can serve", lambda: len(mesh.instances()) == 2 and mesh.answer("/ready") == 200, mesh.processes)
    load.stop()
    assert load.failed == 0, load.answers
    assert load.answers.total() > 100
    assert mesh.log.count("a worker does not answer; it is killed") == 1
    assert "this control plane alone is cut off from the store" in mesh.log


def _most_loaded(mesh: Workers) -> tuple[int, int]:
    """The number, and the process, of the worker that serves the most proxies."""
    streams = mesh.metrics("kuma_xds_streams_active")
    number = max(streams, key=lambda each: streams[each])
    assert streams[number] >= 1
    return number, mesh.pids()[number]


def _is_of(pid: int, client: Address) -> bool:
    """Whether a process has the end of a connection that is at this port of the loopback."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    inodes = {f"socket:[{line[9]}]" for line in lines if int(line[1].rpartition(":")[2], 16) == client[1]}
    return any(_leads_to(link) in inodes for link in Path(f"/proc/{pid}/fd").iterdir())


def _leads_to(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:  # it was closed meanwhile
        return ""


def test_workers_end_whose_parent_is_killed(mesh: Workers) -> None:
    pids = mesh.pids()
    mesh.processes.forget(mesh.parent)
    mesh.parent.kill()
    mesh.parent.wait()
    until("they have ended", lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids.values()))
    assert mesh.log.count("is gone, so it ends, too") == 2


def test_a_worker_that_cannot_start_ends_all_with_what_it_says(postgres_instance: Postgres, tmp_path: Path) -> None:
    with Processes(tmp_path) as processes:
        mesh = DemoMesh(tmp_path, processes)
        store = postgres_instance.settings(postgres_instance.create("never_migrated"))
        done = subprocess.run(
            [BIN / "kuma-cp", "run"],
            env={**mesh.environment, **store, "KUMA_GENERAL_WORKERS": "2"},
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
    assert done.returncode == 1
    assert "kuma-cp migrate up" in done.stderr
    assert "of 2 has ended before all were ready: status 1" in done.stderr
    assert "Traceback" not in done.stderr
