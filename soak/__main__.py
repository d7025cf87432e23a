"""Changes mutual TLS on live traffic, again and again, and kills the control plane now and then.

    python -m soak [SECONDS]

Every request is a new TCP connection through both proxies, and so a new TLS handshake while mutual TLS is on. Prints
the count of requests, failures, handshakes, changes and kills; the exit status is 0 only if no request failed.
"""

from __future__ import annotations

import contextlib
import random
import sys
import time

from demo.mesh import DemoMesh
from demo.processes import Failed, Processes, temporary_home, until
from demo.resources import ALLOW_ALL, BACKEND, WEB
from demo.traffic import Traffic

BUILTIN = "{{name: ca-{0}, type: builtin, mode: {1}, dpCert: {{rotation: {{expiration: {2}s}}}}}}"
RSA = "{{name: rsa-{0}, type: builtin, mode: {1}, conf: {{caCert: {{RSAbits: 2048}}}}}}"
SHORT_ROOT = "{{name: short-{0}, type: builtin, mode: {1}, conf: {{caCert: {{expiration: 1m}}}}}}"


def some_mesh(number: int) -> str:
    """A Mesh that differs from the ones before in one of the ways that the product promises to survive."""
    if random.random() < 0.2:
        return "{type: Mesh, name: default}"
    mode = random.choice(("STRICT", "STRICT", "PERMISSIVE"))
    kind = random.choice((BUILTIN, BUILTIN, RSA, SHORT_ROOT))
    enabled = kind.format(number, mode, random.choice((3, 10, 3600)))
    name = enabled.removeprefix("{name: ").partition(",")[0]
    kept = BUILTIN.format("kept", "STRICT", 3600)
    listed = [enabled, kept] if random.random() < 0.5 else [enabled]
    return f"{{type: Mesh, name: default, mtls: {{enabledBackend: {name}, backends: [{', '.join(listed)}]}}}}"


def main(seconds: float) -> int:
    """Soak for some seconds."""
    with temporary_home("kuma-soak-") as home, Processes(home) as processes:
        mesh = DemoMesh(home, processes)
        control_plane = mesh.start_control_plane()
        mesh.start_workloads()
        mesh.write_dataplanes(BACKEND.replace("kuma.io/protocol: http", "kuma.io/protocol: tcp"), WEB)
        mesh.write("allow-all.yaml", ALLOW_ALL)
        mesh.kumactl("apply", "-f", "allow-all.yaml")
        for service in ("backend", "web"):
            mesh.token(service)
            mesh.start_proxy(service)
        until("web reaches backend", lambda: mesh.call()[0] == 200, processes)
        traffic, changes, kills = Traffic(mesh.web_out), 0, 0
        end = time.monotonic() + seconds
        try:
            while time.monotonic() < end:
                changes += 1
                mesh.write("mesh.yaml", some_mesh(changes))
                mesh.kumactl("apply", "-f", "mesh.yaml")
                if random.random() < 0.15:
                    kills += 1
                    time.sleep(random.random() / 10)
                    processes.forget(control_plane)
                    control_plane.kill()
                    control_plane.wait()
                    control_plane = mesh.start_control_plane()
                if random.random() < 0.7:  # or the next change comes while this one is under way
                    mesh.kumactl("inspect", "meshes", "--watch", "default", "--timeout", "90s")
                    time.sleep(random.random())
                counted = f"{traffic.answers.total()} requests, {traffic.failed} failed"
                print(f"{changes} changes, {kills} kills, {counted}", flush=True)
        finally:
            traffic.stop()
        print(f"answers: {dict(traffic.answers)}; TLS handshakes counted by web's proxy: {mesh.handshakes('web')}")
        return 0 if set(traffic.answers) == {"200"} else 1


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        try:
            sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else 600))
        except Failed as error:
            sys.exit(str(error))
