"""Changes mutual TLS on live traffic, again and again, and disturbs every change.

    python -m soak [SECONDS]

Every request is a new TCP connection through both proxies, and so a new TLS handshake while mutual TLS is on. Control
planes are killed and stopped inside changes and while they resume; proxies join, leave, hang for a minute and are
killed; changes are made on top of each other. After each one it is tried whether plaintext and retired CAs are refused,
if the mesh is to be STRICT. Connections of all six protocols are kept meanwhile: what a retired CA, a leaf that has
expired or a permission that was taken away had allowed has to end within the bound of docs/transitions.md, and what
does not concern a caller leaves its connections alone. The exit status is 0 only if no request failed, nothing was let
in that should not be, and nothing outlived its bound or was cut without a reason.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from demo.mesh import DemoMesh, get
from demo.processes import Failed, Processes, free_ports, temporary_home, until
from demo.resources import ALLOW_ALL, BACKEND, WEB
from demo.traffic import Traffic
from soak.authorities import Provided, is_let_in, takes_plaintext
from soak.bounds import BUSY, DRAIN, LINGER, REFUSAL, Bound
from soak.changes import Change, Changes
from soak.handshakes import Handshakes
from soak.keepers import GUEST, STAYS, Keepers

_HANG = 60.0
"""Seconds that a proxy hangs."""
_BYSTANDER = """\
{{type: Dataplane, mesh: default, name: {name}-01, networking: {{address: 127.0.0.1, admin: {{port: {admin}}},
inbound: [{{port: {port}, servicePort: {port_of_nobody}, tags: {{kuma.io/service: bystander, kuma.io/protocol: tcp}}}}],
outbound: [{{port: {out}, tags: {{kuma.io/service: backend}}}}]}}}}
"""


class Soak:
    """A mesh under load, and what is done to it."""

    def __init__(self, home: Path, processes: Processes) -> None:
        self.mesh = DemoMesh(home, processes)
        self.processes = processes
        self.changes = Changes()
        self.keepers = Keepers(self.mesh, processes)
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.retired: list[Provided] = []
        self._current: Provided | None = None
        self._roots: set[bytes] = set()
        """What was trusted when a change was last looked at."""
        self._since = 0.0
        """When the first change after that was made; 0 if there is none yet."""
        self._bridges = True
        """Whether the leaves in use, of the last complete change and of those since, hold while nobody renews them."""
        self._bystanders: list[tuple[str, subprocess.Popen[bytes]]] = []
        self._leaving: list[tuple[str, subprocess.Popen[bytes]]] = []
        """Who has been told to end, or was killed, with the names of their Dataplanes."""
        signal.signal(signal.SIGALRM, lambda *_: self.wake())
        self._hanging: list[tuple[float, int]] = []

    def start(self) -> None:
        """The demo's two services, over TCP."""
        mesh = self.mesh
        self.control_plane = mesh.start_control_plane()
        mesh.start_workloads()
        mesh.write_dataplanes(BACKEND.replace("kuma.io/protocol: http", "kuma.io/protocol: tcp"), WEB)
        mesh.write("allow-all.yaml", ALLOW_ALL)
        mesh.kumactl("apply", "-f", "allow-all.yaml")
        for service in ("backend", "web"):
            mesh.token(service)
            mesh.start_proxy(service)
        until("web reaches backend", lambda: mesh.call()[0] == 200, self.processes)
        self.keepers.start()

    def round(self, change: Change) -> None:
        """Makes one change, disturbs it, follows it to its end, and checks the result."""
        self.counts["changes"] += 1
        self._since = self._since or time.monotonic()
        self._apply(change)
        self._bridges &= change.survives_outages
        if random.random() < 0.5:
            self._disturb()
        if random.random() < 0.2 and not change.dwell:
            return  # the next change comes on top of this one
        self._follow()
        self.counts["transitions complete"] += 1
        self._bridges = change.survives_outages
        complete = time.monotonic()
        if change.dwell:
            time.sleep(change.dwell)
            self._follow()
        self._expect_ends(change, complete)
        self._look(change)
        if change.enabled and change.lifetime > LINGER and random.random() < 0.4:
            self._refuse_guest()

    def _expect_ends(self, change: Change, complete: float) -> None:
        """Note by when what was opened before this change has to end, and what was opened under short leaves."""
        now, before, self._roots = time.monotonic(), self._roots, self._trusted() if change.enabled else set()
        since, self._since = self._since, 0.0
        if change.enabled and before - self._roots:
            self.keepers.bounds.append(Bound("a retired CA", 0, since, end=now + DRAIN + BUSY))
        elif change.strict and not before:
            self.keepers.bounds.append(Bound("plaintext", 0, since, end=now + DRAIN + BUSY))
        if change.lifetime <= LINGER:
            self.keepers.bounds.append(Bound("an old leaf", complete, now, age=change.lifetime + LINGER + BUSY))

    def _refuse_guest(self) -> None:
        """Takes a caller's permission away and gives it back, while what is no concern of its neighbour's happens."""
        until("what earlier changes end has ended", lambda: not self._may_be_open(), self.processes)
        self.keepers.wait_until_used(STAYS)
        self.counts["permissions taken away"] += 1
        begin = time.monotonic()
        self.keepers.admit(STAYS)
        random.choice((self._join, self._leave, self._kill_proxy))()
        time.sleep(REFUSAL + BUSY)
        before = self.keepers.uses(GUEST)
        random.choice((self._kill, self._stop, self._join))()
        time.sleep(1)
        lasting = [protocol for protocol, uses in self.keepers.uses(GUEST).items() if uses > before[protocol]]
        self.keepers.admit(STAYS, GUEST)
        self.keepers.wait_until_used(GUEST)
        time.sleep(REFUSAL)
        if lasting:
            self.wrong.append(f"outlived the guest's permission: {lasting}")
        if cut := self.keepers.cut(begin, time.monotonic()):
            self.wrong.append(f"cut by what did not concern them: {cut}")

    def _may_be_open(self) -> bool:
        shown = get(f"http://127.0.0.1:{self.mesh.ports.api}/meshes/default/mesh-transitions/default")[1]
        return shown.get("openUntil") is not None

    def _follow(self) -> None:
        self._forget_the_dead()
        self.mesh.kumactl("inspect", "meshes", "--watch", "default", "--timeout", "150s", timeout=170)

    def _apply(self, change: Change) -> None:
        self.mesh.write("change.yaml", change.text())
        self.mesh.kumactl("apply", "-f", "change.yaml")

    def _disturb(self) -> None:
        choices: list[Callable[[], None]] = [self._join, self._join, self._leave, self._kill_proxy, self._hang]
        if self._bridges:
            choices += [self._kill, self._kill, self._stop]
        random.choice(choices)()

    def _kill(self) -> None:
        """kill -9, inside the change, and again while the next control plane resumes it."""
        for _ in range(random.choice((1, 2))):
            time.sleep(random.random() / 10)
            self.counts["control planes killed"] += 1
            self.processes.forget(self.control_plane)
            self.control_plane.kill()
            self.control_plane.wait()
            self.control_plane = self.mesh.start_control_plane()

    def _stop(self) -> None:
        time.sleep(random.random() / 10)
        self.counts["control planes stopped"] += 1
        self.processes.stop(self.control_plane)
        self.control_plane = self.mesh.start_control_plane()

    def _join(self) -> None:
        self.counts["proxies joined"] += 1
        name = f"bystander-{self.counts['proxies joined']}"
        port, admin, out, nobody = free_ports(4)
        text = _BYSTANDER.format(name=name, port=port, admin=admin, out=out, port_of_nobody=nobody)
        self.mesh.write(f"{name}.yaml", text)
        self.mesh.token(name)
        started = self.mesh.start_proxy(name)
        self.processes.forget(started)
        self._bystanders.append((f"{name}-01", started))

    def _some_bystander(self) -> tuple[str, subprocess.Popen[bytes]] | None:
        if not self._bystanders:
            self._join()
            return None
        return self._bystanders.pop(random.randrange(len(self._bystanders)))

    def _leave(self) -> None:
        if found := self._some_bystander():
            self.counts["proxies left"] += 1
            name, process = found
            process.send_signal(signal.SIGTERM)
            self._leaving.append((name, process))

    def _kill_proxy(self) -> None:
        if found := self._some_bystander():
            self.counts["proxies killed"] += 1
            name, process = found
            process.kill()
            process.wait()
            self._leaving.append((name, process))

    def _forget_the_dead(self) -> None:
        """Say so: as far as the control plane knows, one that was killed may be cut off, and go on."""
        for name, process in list(self._leaving):
            if process.poll() is not None:
                self._leaving.remove((name, process))
                with contextlib.suppress(Failed):  # one that could say goodbye is gone already
                    self.mesh.kumactl("delete", "dataplane", name)

    def _hang(self) -> None:
        """A bystander's Envoy stands still for a minute, whatever comes meanwhile."""
        if not self._bystanders:
            return self._join()
        self.counts["proxies hung"] += 1
        _, agent = random.choice(self._bystanders)
        with contextlib.suppress(OSError, IndexError, ValueError):
            children = Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()
            os.kill(int(children[0]), signal.SIGSTOP)
            self._hanging.append((time.monotonic() + _HANG, int(children[0])))
            signal.alarm(int(_HANG) + 1)  # a change that is followed meanwhile is not complete without it
        return None

    def wake(self, *, everybody: bool = False) -> None:
        """Let those go on that have hung for long enough."""
        for end, pid in list(self._hanging):
            if everybody or end <= time.monotonic():
                self._hanging.remove((end, pid))
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def _look(self, change: Change) -> None:
        """Checks what a complete STRICT mesh lets in."""
        before, self._current = self._current, self._authority(change.enabled)
        if before is not None and before != self._current:
            self.retired.append(before)
        if not change.strict:
            return
        port, caller = self.mesh.backend_in, "spiffe://default/web"
        if takes_plaintext(port):
            self.wrong.append(f"plaintext was let in after: {change.what}")
        if self._current is not None and not is_let_in(port, self._current, caller):
            self.wrong.append(f"the CA in use was refused after: {change.what}")
        for old in self.retired[-3:]:
            if old.root not in self._roots and is_let_in(port, old, caller):
                self.wrong.append(f"a retired CA was let in after: {change.what}")
        self.counts["looked at"] += 1

    def _trusted(self) -> set[bytes]:
        """The roots of all authorities that are listed."""
        listed = json.loads(self.mesh.kumactl("get", "mesh", "default", "-o", "json"))["mtls"]["backends"]
        return {found.root for backend in listed if (found := self._authority(backend["name"]))}

    def _authority(self, backend: str) -> Provided | None:
        if not backend:
            return None
        if backend == "own":
            return self.changes.provided
        parts = [self._secret(f"default.ca-builtin-{part}-{backend}") for part in ("cert", "key")]
        return Provided(*parts)

    def _secret(self, name: str) -> bytes:
        return base64.b64decode(json.loads(self.mesh.kumactl("get", "secret", name, "-o", "json"))["data"])

    def end(self) -> None:
        """End what is not ended with the other processes."""
        self.wake(everybody=True)
        for _, process in (*self._bystanders, *self._leaving):
            process.kill()
            process.wait()


def main(seconds: float) -> int:
    """Soak for some seconds."""
    with temporary_home("kuma-soak-") as home, Processes(home) as processes:
        soak = Soak(home, processes)
        soak.start()
        traffic = Traffic(soak.mesh.web_out)
        handshakes = Handshakes(lambda: soak.mesh.handshakes("web"))
        end, renewed = time.monotonic() + seconds, time.monotonic()
        try:
            while time.monotonic() < end:
                soak.wake()
                due = time.monotonic() - renewed > 300
                change = soak.changes.renewal() if due else soak.changes.draw()
                renewed = time.monotonic() if due else renewed
                soak.round(change)
                soak.wrong += soak.keepers.overstaying()
                numbers = (
                    f"{traffic.answers.total()} requests, {handshakes.total} handshakes, {traffic.failed} failures"
                )
                print(f"{soak.counts['changes']} changes, {numbers}; {change.what}", *soak.wrong, sep="; ", flush=True)
        finally:
            traffic.stop()
            handshakes.stop()
            soak.keepers.stop()
            soak.end()
        print(soak.keepers)
        print(f"bounds looked at: {dict(soak.keepers.judged)}")
        soak.wrong += soak.keepers.failures()
        print(f"{dict(soak.counts)}; answers: {dict(traffic.answers)}; {handshakes.total} TLS handshakes")
        for text in soak.wrong:
            print(text)
        return 0 if set(traffic.answers) == {"200"} and not soak.wrong else 1


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        try:
            sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else 600))
        except Failed as error:
            sys.exit(str(error))
