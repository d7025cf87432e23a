"""A node of Pods that run in the tests' cluster, with a control plane and a host that is in no mesh."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from demo.processes import BIN, Processes, inherited, until
from tools import hosts
from tools.hosts import Host
from tools.kubernetes.cluster import Cluster
from tools.kubernetes.installed import NAMESPACE, Installed, installed, kumactl
from tools.kubernetes.pod_runner import PodRunner, Running

HOSTS = ("127.0.0.2", "127.0.0.3")
"""Of control planes."""
CALLER = Path(__file__).parent / "caller.py"
EVERYTHING = Path(__file__).parents[1] / "everything.py"
NAMESPACED = """
apiVersion: v1
kind: Namespace
metadata: {name: run, labels: LABELS}
---
apiVersion: v1
kind: Service
metadata: {name: backend, namespace: run}
spec: {selector: {app: backend}, ports: [{port: 80, targetPort: 8080, appProtocol: http}]}
"""
PODS = """
apiVersion: v1
kind: Pod
metadata: {name: NAME, namespace: run, labels: {app: NAME}}
spec:
  containers:
  - name: app
    image: app
    ports: [{containerPort: 8080}]
    readinessProbe: {httpGet: {path: /health, port: 8080}}
"""
MESH = """
apiVersion: kuma.io/v1alpha1
kind: Mesh
metadata: {name: default}
spec:
  mtls:
    enabledBackend: CA
    backends: [{name: ca-1, type: builtin, mode: MODE}, {name: ca-2, type: builtin, mode: MODE}]
"""
PERMISSION = """
apiVersion: kuma.io/v1alpha1
kind: TrafficPermission
mesh: default
metadata: {name: all}
spec: {sources: [{match: {kuma.io/service: '*'}}], destinations: [{match: {kuma.io/service: '*'}}]}
"""


class Calls:
    """Calls that are made without end by a process of `caller.py`; `log` is what it prints."""

    def __init__(self, log: Path, processes: Processes) -> None:
        self._log = log
        self._processes = processes
        self._before = 0

    @property
    def answers(self) -> Counter[str]:
        """How often there was each answer, from when `begin` was called."""
        return Counter(self._log.read_text().splitlines()[self._before :])

    def begin(self) -> None:
        """Count from now on: calls are answered."""
        until("calls are answered", lambda: self._log.read_text().endswith("200\n"), self._processes)
        self._before = len(self._log.read_text().splitlines())

    def go_on(self, number: int = 20) -> Counter[str]:
        """Returns all answers once there are some more of them."""
        before = self.answers.total()
        until("calls go on", lambda: self.answers.total() >= before + number, self._processes)
        return self.answers


class Node:
    """The Pods of a namespace, and a host that is in no mesh."""

    def __init__(self, kuma: Installed, runner: PodRunner, outsider: Host) -> None:
        self.kuma, self.runner, self.outsider = kuma, runner, outsider
        self._numbers = itertools.count()

    def run(self, command: str, directory: Path, status: int = 0) -> str:
        """Runs a command as it stands in the documentation, and returns what it prints.

        Raises:
            AssertionError: it has another exit status.
        """
        config = directory / ".kumactl" / "config"
        if not config.exists():
            kumactl("--config-file", config, "config", "control-planes", "add", "--name=k", "--address", self.kuma.url)
        path = f"{BIN}:{self.kuma.cluster.programs}:{os.environ['PATH']}"
        environment = {**inherited(), "HOME": str(directory), "PATH": path, "KUBECONFIG": str(self.kuma.cluster.admin)}
        done = subprocess.run(
            ["bash", "-c", command], cwd=directory, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == status, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def until_account(self, namespace: str = "run") -> None:
        """Returns once Pods can be created in a namespace."""
        named = ("get", "serviceaccount", "default", "-n", namespace)
        there = lambda: not self.kuma.cluster.kubectl(*named, check=False).returncode  # noqa: E731
        until("there is a ServiceAccount", there, self.kuma.processes)

    def apply(self, text: str) -> None:
        self.kuma.cluster.kubectl("apply", "-f", "-", text=text)

    def mesh(self, ca: str = "ca-1", mode: str = "STRICT") -> None:
        self.apply(MESH.replace("CA\n", f"{ca}\n").replace("MODE", mode))

    def change(self, ca: str) -> None:
        """The same, as soon as the API server reaches the control plane that judges it."""
        text = MESH.replace("CA\n", f"{ca}\n").replace("MODE", "STRICT")
        apply = ("apply", "-f", "-")
        until(
            "the mesh is changed",
            lambda: not self.kuma.cluster.kubectl(*apply, text=text, check=False).returncode,
            self.kuma.processes,
        )

    @property
    def address(self) -> str:
        """The address of the Service of `backend`."""
        return self.address_of("backend")

    @property
    def service(self) -> str:
        """The URL of the Service of `backend`."""
        return f"http://{self.address}"

    def address_of(self, service: str, namespace: str = "run") -> str:
        found = self.kuma.cluster.ask("GET", f"/api/v1/namespaces/{namespace}/services/{service}")
        return str(found["spec"]["clusterIP"])

    def rolled_out(self, deployment: str, namespace: str = "run") -> bool:
        """Tells whether all Pods of a Deployment are of its newest template, and available."""
        found = self.kuma.cluster.ask("GET", f"/apis/apps/v1/namespaces/{namespace}/deployments/{deployment}")
        status, wanted = found.get("status", {}), found["spec"]["replicas"]
        seen = status.get("observedGeneration") == found["metadata"]["generation"]
        counts = [status.get(name) for name in ("replicas", "updatedReplicas", "availableReplicas")]
        return seen and counts == [wanted] * 3

    def pod(self, name: str) -> Running:
        self.apply(PODS.replace("NAME", name))
        return self.runner.run(name, "run")

    def status(self, caller: Host, url: str) -> str:
        """What a caller is answered, with the status in its last line; `000` if it is not answered."""
        return caller.run("timeout", "60", "curl", "-s", "-g", "-w", "\n%{http_code}", url, uid=1000, check=False)

    @contextmanager
    def calls(self, caller: Host, host: str, port: int = 80) -> Iterator[Calls]:
        """Calls from a host to a service while the block lasts."""
        place = self.runner.directory / f"calls-{next(self._numbers)}"
        place.mkdir()
        with Processes(place) as processes:
            processes.start("calls", caller.command(sys.executable, CALLER, host, str(port), uid=1000), {})
            yield Calls(place / "calls.log", processes)

    def issued_by(self, backend: str) -> bool | None:
        """Tells whether all proxies have leaves of a backend."""
        found = (self.kuma.get("/meshes/default/dataplanes+insights") or {}).get("items", ())
        issued = [one.get("dataplaneInsight", {}).get("mTLS", {}).get("issuedBackend") for one in found]
        return (len(issued) > 1 and set(issued) == {backend}) or None

    def until_issued_by(self, backend: str) -> None:
        """Returns once all proxies have leaves of a backend, and the mesh says that the change is over."""
        until(f"all leaves are of {backend}", lambda: self.issued_by(backend), self.kuma.processes)
        until("the change is complete", self._is_complete, self.kuma.processes)

    def _is_complete(self) -> bool:
        found = self.kuma.cluster.kubectl("get", "mesh", "default", "-o", "jsonpath={.status.state}", check=False)
        return found.stdout == "complete"

    def answers(self, caller: Host, url: str, status: str) -> str:
        """What a caller is answered, once it has this status."""

        def asked() -> str | None:
            found = self.status(caller, url)
            return found if found.endswith(status) else None

        return until(f"{url} answers {status}", asked, self.kuma.processes)


def _token(cluster: Cluster, pod: dict[str, Any]) -> str:
    """The token of the ServiceAccount of a Pod, bound to that Pod, as the kubelet asks for it."""
    name, namespace, uid = (pod["metadata"][field] for field in ("name", "namespace", "uid"))
    bound = ("--bound-object-kind=Pod", f"--bound-object-name={name}", f"--bound-object-uid={uid}")
    asked = ("create", "token", "default", "-n", namespace, f"--audience=kuma-control-plane.{NAMESPACE}", *bound)
    return cluster.kubectl(*asked).stdout.strip()


@contextmanager
def node_of(cluster: Cluster, logs: Path) -> Iterator[Node]:
    """A node with a control plane, and no Pods; its namespace is deleted at the end."""
    # Of the networks for tests of networks (RFC 2544): this machine is on it, too, and needs its others.
    prefix = f"198.{18 + os.getpid() // 256 % 2}.{os.getpid() % 256}"
    with (
        tempfile.TemporaryDirectory() as made,
        installed(cluster, logs, HOSTS) as kuma,
        hosts.host() as switch,
    ):
        directory = Path(made)
        directory.chmod(0o755)
        names = directory / "hosts"
        control_plane = f"kuma-control-plane.{NAMESPACE}"
        names.write_text(f"127.0.0.1 localhost\n{prefix}.1 {control_plane}\n")
        switch.run("ip", "link", "add", "br0", "type", "bridge")
        switch.run("ip", "link", "set", "br0", "up")
        hosts.join(switch, f"{prefix}.1")
        kuma.serve_at(f"{prefix}.1")
        for kind in ("trafficpermissions", "meshtrafficpermissions"):  # of tests that had this cluster before
            cluster.kubectl("delete", kind, "--all", "--all-namespaces")
        app = (sys.executable, EVERYTHING, "8080,9090", "7070")
        runner = PodRunner(
            cluster, directory, switch, prefix, f"fd{os.getpid() % 256:02x}::", names,
            commands={"app": app, "kuma-init": (), "kuma-dp": (BIN / "kuma-dp",), "curl": ("curl",)},
            token=lambda pod: _token(cluster, pod),
            overrides={"KUMA_CONTROL_PLANE_URL": f"https://{control_plane}:{kuma.ports['dp']}"},
        )  # fmt: skip
        with runner.host() as outsider:
            try:
                yield Node(kuma, runner, outsider)
            finally:
                runner.close()
                cluster.kubectl("delete", "namespace", "run", "--wait=false", "--ignore-not-found")
