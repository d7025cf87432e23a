"""`make demo-kubernetes`: from an empty Kubernetes API to Pods that speak mutual TLS, step by step.

The API server and its controllers are real, and so are `kubectl`, the control planes with the ServiceAccount that is
installed, the injected containers, their Envoys and the redirection of their traffic. Only the kubelet is not: the
containers of Pods are processes here, in network namespaces of their own.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from demo.processes import Failed, temporary_home, until
from demo.steps import Printed, console, exit_status
from demo.traffic import LEAST
from tools.hosts import Host
from tools.kubernetes.build import binaries
from tools.kubernetes.cluster import Cluster
from tools.kubernetes.installed import kumactl
from tools.kubernetes.node import HOSTS, MESH, NAMESPACED, PERMISSION, Calls, Node, node_of

LIFETIME = 10
"""Seconds that certificates live while their rotation is shown."""
ROTATIONS = 2


def main() -> int:
    """Run the demo; 0 only if every step had the outcome that it claims."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    return exit_status(_walk)


def _walk() -> None:
    started = time.monotonic()
    steps = Printed()
    with temporary_home("kuma-demo-") as home:
        steps.step("Start a Kubernetes API: etcd, kube-apiserver, kube-controller-manager")
        with Cluster(binaries(), home / "cluster") as cluster:
            steps.outcome(f"the API server answers at {cluster.url}")
            (home / "logs").mkdir()
            steps.step("Install the control plane")
            steps.command("kumactl install control-plane | kubectl apply --server-side -f -")
            with node_of(cluster, home / "logs") as node:
                steps.outcome("it judges what kubectl writes")
                walk_through(steps, node)
    seconds = time.monotonic() - started
    console.print(f"\n[bold green]Every step had the outcome it claims[/bold green] ({seconds:.0f} s).")


def walk_through(steps: Printed, node: Node, lifetime: int = LIFETIME, rotations: int = ROTATIONS) -> None:
    """Walks through all steps from an installed control plane on, in order.

    `lifetime` is the seconds that certificates live while `rotations` of them are waited for, after the first new one.

    Raises:
        Failed: one of them has another outcome than it claims.
    """
    inject(steps, node)
    turn_on(steps, node)
    outside(steps, node)
    rotate(steps, node, lifetime, rotations)
    another_authority(steps, node)
    kill_the_leader(steps, node)
    tables(steps, node)


def inject(steps: Printed, node: Node) -> None:
    """Pods of a namespace with a label get a sidecar."""
    steps.step("Label a namespace: its Pods get a sidecar")
    node.apply(NAMESPACED.replace("LABELS", "{}"))
    steps.command("kubectl label namespace run kuma.io/sidecar-injection=enabled")
    node.kuma.cluster.kubectl("label", "namespace", "run", "kuma.io/sidecar-injection=enabled")
    node.apply("{apiVersion: kuma.io/v1alpha1, kind: Mesh, metadata: {name: default}}")
    node.until_account()
    for name in ("backend", "web"):
        steps.command(f"kubectl apply -f {name}.yaml")
        spec = node.pod(name).found["spec"]
        containers = [one["name"] for one in (*spec["initContainers"], *spec["containers"])]
        _expect(containers == ["kuma-init", "kuma-sidecar", "app"], f"Pod {name} has the containers {containers}")
    steps.outcome("the Pods have the containers kuma-init, kuma-sidecar and app, and are ready")
    answer = _called(steps, node, "200")
    _expect("spiffe://" not in answer, "backend was told of a caller although mutual TLS is off")
    steps.outcome("200: mutual TLS is off, and backend does not know who called")


def turn_on(steps: Printed, node: Node) -> None:
    """Mutual TLS denies by default; a permission admits."""
    steps.step("Turn on mutual TLS: nobody is admitted until a permission says so")
    _apply_mesh(steps, node)
    _called(steps, node, "403")
    steps.outcome("403: refused by backend's sidecar")
    steps.command("kubectl apply -f permission.yaml")
    node.apply(PERMISSION)
    answer = _called(steps, node, "200")
    _expect("URI=spiffe://default/web_run_svc" in answer, f"backend was told: {answer}")
    direct = node.answers(_web(node), f"http://{_backend(node)}:8080", "200")
    _expect("URI=spiffe://default/web_run_svc" in direct, f"backend was told: {direct}")
    steps.outcome("200: backend sees spiffe://default/web_run_svc, called by its Service or by its own address")


def outside(steps: Printed, node: Node) -> None:
    """Plaintext from outside of the mesh comes in under PERMISSIVE only."""
    steps.step("Somebody outside of the mesh calls backend in plaintext, also where no Service leads to")
    _plaintext(node, "000")
    steps.outcome("STRICT: no answer")
    for mode, status, said in (("PERMISSIVE", "200", "200"), ("STRICT", "000", "no answer")):
        _apply_mesh(steps, node, mode=mode)
        _plaintext(node, status)
        steps.outcome(f"{mode}: {said}")


def rotate(steps: Printed, node: Node, lifetime: int, rotations: int) -> None:
    """Certificates that live for seconds are replaced under load."""
    steps.step(f"Let certificates live {lifetime} seconds, and watch them rotate while web calls backend")
    with _load(steps, node):
        first = _regenerations(node)
        _apply_mesh(steps, node, lifetime=lifetime)
        until("certificates rotate", lambda: _regenerations(node) > first + rotations, node.kuma.processes)
        steps.outcome(f"backend's certificate was replaced {_regenerations(node) - first} times")
        _apply_mesh(steps, node)


def another_authority(steps: Printed, node: Node) -> None:
    """Another CA, by kubectl, under load."""
    steps.step("Change the CA while web calls backend")
    with _load(steps, node):
        _apply_mesh(steps, node, ca="ca-2")
        node.until_issued_by("ca-2")
        steps.outcome("all certificates are of ca-2")


def kill_the_leader(steps: Printed, node: Node) -> None:
    """kill -9 in the middle of a change of the CA; another control plane takes over."""
    steps.step("Change the CA again, and kill the leading control plane in the middle of it")
    with _load(steps, node):
        second = node.kuma.start_beside("second", HOSTS[1])
        _apply_mesh(steps, node, ca="ca-1")
        node.kuma.kill()
        node.kuma.process = second
        steps.note("kill -9; another control plane waits for its Lease to end")
        node.until_issued_by("ca-1")
        steps.outcome("all certificates are of ca-1: the other control plane has completed the change")


def tables(steps: Printed, node: Node) -> None:
    """Shows what an operator sees."""
    steps.step("Look at it")
    for kind in ("meshes", "dataplanes -n run"):
        steps.command(f"kubectl get {kind}")
        _print(steps, node.kuma.cluster.kubectl("get", *kind.split()).stdout)
    steps.command("kumactl inspect dataplanes")
    config = ("--config-file", node.kuma.directory / "kumactl")
    kumactl(*config, "config", "control-planes", "add", "--name=demo", "--address", node.kuma.url, "--overwrite")
    found = kumactl(*config, "inspect", "dataplanes").stdout
    _print(steps, found)
    _expect(found.count("Online") == 2, "two proxies should be online")


@contextmanager
def _load(steps: Printed, node: Node) -> Iterator[None]:
    """Calls of web without a pause while the block lasts.

    Raises:
        Failed: one of them failed.
    """
    with node.calls(_web(node), node.address) as calls:
        calls.begin()
        yield
        steps.outcome(_judged(calls))


def _judged(calls: Calls) -> str:
    answers = calls.go_on(LEAST)
    failed = answers.total() - answers["200"]
    said = f"{answers.total():,} calls, {failed or 'none'} failed"
    _expect(not failed, f"calls failed: {said}: {dict(answers)}")
    return said


def _apply_mesh(steps: Printed, node: Node, ca: str = "ca-1", mode: str = "STRICT", lifetime: int = 0) -> None:
    text = MESH.replace("CA\n", f"{ca}\n").replace("MODE", mode)
    if lifetime:
        text = text.replace("type: builtin", f"type: builtin, dpCert: {{rotation: {{expiration: {lifetime}s}}}}")
    live = f", dpCert for {lifetime}s" if lifetime else ""
    steps.command(f"kubectl apply -f mesh.yaml   # {ca}, {mode}{live}")
    node.apply(text)


def _called(steps: Printed, node: Node, status: str) -> str:
    """What web is answered by backend, once it has this status."""
    steps.command(f"kubectl exec web -- curl {node.service}")
    return node.answers(_web(node), node.service, status)


def _plaintext(node: Node, status: str) -> None:
    for port in (8080, 9090):
        node.answers(node.outsider, f"http://{_backend(node)}:{port}", status)


def _regenerations(node: Node) -> int:
    path = "/meshes/default/dataplanes+insights/backend.run"
    found = (node.kuma.get(path) or {}).get("dataplaneInsight", {}).get("mTLS", {})
    return int(found.get("certificateRegenerations", 0))


def _web(node: Node) -> Host:
    return node.runner.pods["web"].host


def _backend(node: Node) -> str:
    return node.runner.pods["backend"].address


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Failed(otherwise)


def _print(steps: Printed, text: str) -> None:
    for line in text.rstrip().splitlines():
        steps.note(line)


if __name__ == "__main__":
    sys.exit(main())
