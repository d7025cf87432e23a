"""`make demo-ha`: three control planes over one PostgreSQL; whatever happens to them, no request fails."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from demo import postgres, resources, traffic
from demo.mesh import Unanswered
from demo.processes import Failed, Processes, temporary_home, until
from demo.several import SeveralControlPlanes
from demo.steps import Steps, console, exit_status
from demo.traffic import Traffic

AUTHORITIES = {"ca-1": resources.MESH_WITH_MTLS, "ca-2": resources.MESH_WITH_ANOTHER_CA}


@dataclass(frozen=True)
class Faults:
    """How long each fault lasts, in seconds, and how many requests there are meanwhile."""

    away: float = 60.0
    """For which the database is stopped."""
    read_only: float = 15.0
    """For which the database takes no writes after its connections were cut, as in a failover."""
    cut: float = 80.0
    """For which a control plane is cut off: longer than it takes the others to give up who does not come back."""
    pause: float = 15.0
    """For which the leader is stopped: longer than it takes the others to lead."""
    between_calls: float = 0.0
    """For which each of the threads that call waits after a request."""


def main() -> int:
    """Run the demo; 0 only if no request failed."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    return exit_status(_walk)


def _walk() -> None:
    with postgres.server() as database, temporary_home("kuma-demo-") as home, Processes(home) as processes:
        walk_through(Steps(SeveralControlPlanes(home, processes, database)))


def walk_through(steps: Steps) -> None:
    """Walks through all steps, in order."""
    faults = Faults()
    start(steps)
    for fault in (kill_the_leader, pause_the_leader, cut_one_off, fail_the_database_over, stop_the_database):
        fault(steps, faults)
    console.print("\n[bold green]No request failed[/bold green].")


def start(steps: Steps) -> None:
    """Three control planes, two proxies, mutual TLS."""
    mesh = _mesh(steps)
    steps.step("Start three control planes over one PostgreSQL, behind a TCP load balancer")
    mesh.start_control_plane()
    until("one of them leads", lambda: len(mesh.instances()) == 3 and mesh.leader() is not None, mesh.processes)
    steps.kumactl("inspect", "control-planes")
    steps.step("Start two workloads with their proxies, and turn mutual TLS on")
    mesh.start_workloads()
    mesh.write_dataplanes()
    for service in ("backend", "web"):
        mesh.token(service)
        mesh.start_proxy(service)
    mesh.kumactl("apply", "-f", str(mesh.write("mesh.yaml", AUTHORITIES["ca-1"] + "---\n" + resources.ALLOW_ALL)))
    _complete(steps, "ca-1")
    steps.calls("web reaches backend", lambda status, _: status == 200)
    steps.outcome("the mesh is STRICT, and web reaches backend")


def kill_the_leader(steps: Steps, faults: Faults) -> None:
    """kill -9 in the middle of a change of the CA."""
    mesh = _mesh(steps)
    steps.step("Change the CA, and kill -9 the leader in the middle of it")
    with _load(steps, faults):
        leader = _leader(mesh)
        _change(steps, "ca-2")
        mesh.kill(leader)
        steps.note(f"control plane {leader} is killed")
        _complete(steps, "ca-2")
        mesh.start_instance(leader)


def pause_the_leader(steps: Steps, faults: Faults) -> None:
    """SIGSTOP in the middle of a change of the CA; it comes back believing that it leads."""
    mesh = _mesh(steps)
    steps.step(f"Change the CA again, and stop the leader's process for {faults.pause:.0f} seconds in the middle of it")
    with _load(steps, faults):
        leader = _leader(mesh)
        _change(steps, "ca-1")
        mesh.pause(leader)
        time.sleep(faults.pause)
        mesh.go_on(leader)
        steps.note(f"control plane {leader} goes on; {_leader(mesh)} leads now")
        _complete(steps, "ca-1")


def cut_one_off(steps: Steps, faults: Faults) -> None:
    """Nothing comes through between one control plane and the database, then between it and its proxies."""
    mesh = _mesh(steps)
    steps.step(f"Cut one control plane off from the database for {faults.cut:.0f} seconds, then one from its proxies")
    for authority, cut in (("ca-2", mesh.cut_from_database), ("ca-1", mesh.cut_from_proxies)):
        with _load(steps, faults):
            number = mesh.most_loaded()
            cut(number)
            _change(steps, authority)
            time.sleep(faults.cut)
            _complete(steps, authority)
            cut(number, whole=True)
            until("all control planes are there", lambda: len(mesh.instances()) == 3, mesh.processes)
    steps.kumactl("inspect", "control-planes")


def fail_the_database_over(steps: Steps, faults: Faults) -> None:
    """All connections are cut, and the database takes no writes for a while, in the middle of a change of the CA."""
    mesh = _mesh(steps)
    lasts = f"{faults.read_only:.0f} seconds"
    steps.step(f"Change the CA, cut all connections to PostgreSQL, and let it take no writes for {lasts}")
    with _load(steps, faults):
        _change(steps, "ca-2")
        mesh.fail_database_over(read_only=True)
        time.sleep(faults.read_only)
        mesh.fail_database_over(read_only=False)
        steps.note("PostgreSQL takes writes again")
        _complete(steps, "ca-2")


def stop_the_database(steps: Steps, faults: Faults) -> None:
    """The database goes away and comes back; then the CA changes once more."""
    mesh = _mesh(steps)
    steps.step(f"Stop PostgreSQL for {faults.away:.0f} seconds, start it again, and change the CA")
    with _load(steps, faults):
        mesh.database.kill()
        time.sleep(faults.away)
        mesh.database.start()
        until("all control planes are there", lambda: len(mesh.instances()) == 3, mesh.processes)
        _change(steps, "ca-1")
        _complete(steps, "ca-1")
    steps.kumactl("inspect", "control-planes")


@contextmanager
def _load(steps: Steps, faults: Faults) -> Iterator[None]:
    """Requests while the block runs, each with a handshake of its own.

    Raises:
        Failed: one of them failed.
    """
    mesh = _mesh(steps)
    before, load = mesh.handshakes("web", mesh.TCP_HANDSHAKES), Traffic(mesh.web_tcp_out, pause=faults.between_calls)
    try:
        yield
    finally:
        load.stop()
    steps.outcome(traffic.judge(load.answers, mesh.handshakes("web", mesh.TCP_HANDSHAKES) - before))


def _change(steps: Steps, authority: str) -> None:
    mesh = _mesh(steps)
    path = str(mesh.write("mesh.yaml", AUTHORITIES[authority]))
    until("the change is stored", lambda: _applied(mesh, path), mesh.processes)


def _applied(mesh: SeveralControlPlanes, path: str) -> bool:
    """A write that is told to wait is made again, as by any client."""
    try:
        mesh.kumactl("apply", "-f", path)
    except Failed:
        return False
    return True


def _complete(steps: Steps, authority: str) -> None:
    """Waits until all certificates are of an authority, and the change says that it is complete."""
    mesh = _mesh(steps)
    steps.note("kumactl inspect meshes --watch default")
    until(f"all have certificates of {authority}", lambda: _issued_by(mesh) == {authority}, mesh.processes)
    said: list[str] = []

    def followed() -> bool:
        try:
            said.append(mesh.kumactl("inspect", "meshes", "--watch", "default", "--timeout", "2m"))
        except Failed:
            return False
        return True

    until("the change is complete", followed, mesh.processes)
    steps.note(said[-1].strip().splitlines()[-1])


def _issued_by(mesh: SeveralControlPlanes) -> set[str | None]:
    try:
        return {mesh.insight(f"{service}-01").get("issuedBackend") for service in ("backend", "web")}
    except Unanswered:
        return set()


def _leader(mesh: SeveralControlPlanes) -> int:
    """The number of the control plane that leads."""
    found: list[int] = []

    def known() -> bool:
        leader = mesh.leader()
        found.extend([] if leader is None else [leader])
        return leader is not None

    until("one of them leads", known, mesh.processes)
    return found[-1]


def _mesh(steps: Steps) -> SeveralControlPlanes:
    assert isinstance(steps.mesh, SeveralControlPlanes)
    return steps.mesh


if __name__ == "__main__":
    sys.exit(main())
