"""Walks from nothing to mutual TLS, each step with its command and its proven outcome."""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
import time
from collections.abc import Iterator

from demo import resources, traffic
from demo.mesh import DemoMesh, Ports
from demo.processes import Failed, Processes, temporary_home, until
from demo.steps import Steps, console, exit_status
from demo.traffic import Traffic

LIFETIME = 6
ROTATIONS = 3


def main() -> int:
    """Run the demo; 0 only if every step had the outcome that it claims."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, lambda number, _: sys.exit(128 + number))
    return exit_status(_walk)


def _walk() -> None:
    with temporary_home("kuma-demo-") as home, Processes(home) as processes:
        mesh = DemoMesh(home, processes, Ports.standard())
        walk_through(Steps(mesh))
        if sys.stdout.isatty():
            look_around(mesh)


def walk_through(steps: Steps) -> None:
    """Walks through all steps, in order."""
    started = time.monotonic()
    start(steps)
    turn_on(steps)
    refuse_plaintext(steps)
    permissions(steps)
    rotate(steps)
    another_authority(steps)
    tables(steps)
    seconds = time.monotonic() - started
    console.print(f"\n[bold green]Every step had the outcome it claims[/bold green] ({seconds:.0f} s).")


def start(steps: Steps) -> None:
    """A control plane, two workloads, two proxies, and a call in the clear."""
    mesh = steps.mesh
    steps.step("Start the control plane: one process, one SQLite file")
    steps.command("kuma-cp run")
    mesh.start_control_plane()
    steps.outcome(f"it is ready; API on http://localhost:{mesh.ports.api} (OpenAPI at /docs)")
    steps.step("Start two workloads, each with a data plane proxy: a real Envoy")
    mesh.start_workloads()
    mesh.write_dataplanes()
    for service in ("backend", "web"):
        command = f"kumactl generate dataplane-token --name {service}-01 --mesh default --valid-for 24h"
        steps.command(f"{command} > {service}-token")
        mesh.token(service)
        steps.command(" ".join(mesh.proxy_command(service)))
        mesh.start_proxy(service)
    steps.step("Mutual TLS is off: web calls backend in the clear")
    steps.command(f"curl http://127.0.0.1:{mesh.web_app}/")
    answer = steps.calls("web reaches backend", lambda status, _: status == 200)
    if answer.get("caller"):
        raise Failed(f"backend was told of a caller although mutual TLS is off: {answer}")
    steps.outcome("200: it works, and backend does not know who called")


def turn_on(steps: Steps) -> None:
    """Allow everything, then encrypt everything."""
    mesh = steps.mesh
    steps.step("Allow all traffic, then turn on mutual TLS with a builtin CA")
    mesh.write("allow-all.yaml", resources.ALLOW_ALL)
    mesh.write("mesh.yaml", resources.MESH_WITH_MTLS)
    console.print(_indented(resources.MESH_WITH_MTLS), markup=False, style="dim")
    steps.kumactl("apply", "-f", "allow-all.yaml")
    steps.kumactl("apply", "-f", "mesh.yaml")
    steps.command(f"curl http://127.0.0.1:{mesh.web_app}/")
    answer = steps.calls(
        "backend sees the caller's identity", lambda s, a: s == 200 and "URI=spiffe://default/web" in a["caller"]
    )
    steps.outcome(f"the same call travels over mutual TLS; backend sees {answer['caller']}")


def refuse_plaintext(steps: Steps) -> None:
    """Shows that nobody without a certificate gets in."""
    port = steps.mesh.backend_in
    steps.step("A caller from outside the mesh tries backend's inbound in plaintext")
    steps.command(f"curl http://127.0.0.1:{port}/")

    def refused() -> bool:
        return not _plaintext_answer(port)

    until("plaintext is refused", refused, steps.mesh.processes)
    steps.outcome("the connection is closed without an answer")


def _plaintext_answer(port: int) -> bytes:
    with contextlib.suppress(ConnectionError), socket.create_connection(("127.0.0.1", port), timeout=30) as sock:
        sock.sendall(traffic.REQUEST)
        return sock.recv(100)
    return b""


def permissions(steps: Steps) -> None:
    """Shows that there is no traffic without a permission."""
    steps.step("Take the permission away: mutual TLS alone admits nobody")
    steps.kumactl("delete", "traffic-permission", "allow-all", "--mesh", "default")
    steps.calls("the call is refused", lambda status, _: status == 403)
    steps.outcome("403: refused by backend's proxy")
    steps.step("Put it back")
    steps.kumactl("apply", "-f", "allow-all.yaml")
    steps.calls("the call is admitted", lambda status, _: status == 200)
    steps.outcome("200: admitted again, without a restart of anything")


_BETWEEN_REQUESTS = 0.01
"""Seconds for each of the threads: a steady load that leaves the machine's cores to what is shown under it."""


@contextlib.contextmanager
def load(steps: Steps) -> Iterator[Traffic]:
    """Requests while the block lasts, each with a TLS handshake of its own: a certificate that does not work shows."""
    mesh = steps.mesh
    until("web reaches backend over TCP", lambda: traffic.call(mesh.web_tcp_out) == "200", mesh.processes)
    before = mesh.handshakes("web", mesh.TCP_HANDSHAKES)
    running = Traffic(mesh.web_tcp_out, threads=2, pause=_BETWEEN_REQUESTS)
    try:
        yield running
    finally:
        running.stop()
    steps.outcome(traffic.judge(running.answers, mesh.handshakes("web", mesh.TCP_HANDSHAKES) - before))


def rotate(steps: Steps) -> None:
    """Certificates that live for seconds, replaced under traffic."""
    mesh = steps.mesh
    steps.step(f"Let certificates live {LIFETIME} seconds and watch them rotate under traffic: a handshake per request")
    mesh.write("mesh.yaml", resources.MESH_WITH_SHORT_LEAVES.format(lifetime=LIFETIME))
    steps.kumactl("apply", "-f", "mesh.yaml")
    first = seen = mesh.insight("backend-01").get("certificateRegenerations", 0)
    with load(steps) as running:
        end = time.monotonic() + 60
        while seen - first <= ROTATIONS and time.monotonic() < end:
            mesh.processes.check()
            time.sleep(0.2)
            now = mesh.insight("backend-01").get("certificateRegenerations", 0)
            if now > seen:
                seen, total = now, running.answers.total()
                steps.note(f"backend-01: certificate regeneration {now}; {total} requests, {running.failed} failed")
        if seen - first <= ROTATIONS:
            raise Failed(f"only {seen - first} rotations were seen within a minute")
        time.sleep(1)  # with the newest certificate
    steps.outcome(f"{seen - first} rotations")


def another_authority(steps: Steps) -> None:
    """The original forbids this while mutual TLS is on."""
    mesh = steps.mesh
    steps.step("Under the same load, replace the CA by another one, and remove the old one in the same edit")
    mesh.write("mesh.yaml", resources.MESH_WITH_ANOTHER_CA)
    with load(steps):
        steps.kumactl("apply", "-f", "mesh.yaml")
        steps.kumactl("inspect", "meshes", "--watch", "default", "--timeout", "60s")
        time.sleep(1)
    issued = mesh.insight("backend-01").get("issuedBackend")
    if issued != "ca-2":
        raise Failed(f"backend's certificate is of {issued}")
    steps.outcome("every certificate is of ca-2 now")


def tables(steps: Steps) -> None:
    """Shows what an operator sees."""
    steps.step("Look at the secrets and the proxies")
    secrets = steps.kumactl("get", "secrets", "--mesh", "default")
    if "default.ca-builtin-cert-ca-2" not in secrets or "default.ca-builtin-key-ca-2" not in secrets:
        raise Failed("the CA's two Secrets are not listed")
    steps.kumactl("inspect", "meshes")
    proxies = steps.kumactl("inspect", "dataplanes")
    if proxies.count("Online") != 2:
        raise Failed("two proxies should be online")


def look_around(mesh: DemoMesh) -> None:
    """Keep running for a curious user."""
    console.print("\nThe mesh keeps running. In another terminal:")
    console.print(f"   export HOME={mesh.home}; cd {mesh.home}", markup=False)
    console.print("   kumactl inspect dataplanes     # kumactl is in .venv/bin", markup=False)
    console.print(f"   curl http://127.0.0.1:{mesh.web_app}/", markup=False)
    console.print("Ctrl-C stops everything.")
    while True:
        mesh.processes.check()
        time.sleep(0.5)


def _indented(text: str) -> str:
    return "\n".join(f"   | {line}" for line in text.rstrip().splitlines())
