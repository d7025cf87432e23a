"""Pods that run with the sidecars that they are given: real Envoys, redirected by the kernel, called as ever."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from demo.processes import BIN, until
from tests.fakes import hosts
from tests.fakes.hosts import Host
from tests.kubernetes.installed import NAMESPACE, Installed, installed
from tests.kubernetes.pod_runner import PodRunner, Running
from tools.kubernetes.cluster import Cluster

pytestmark = pytest.mark.timeout(3600)  # the first test waits until the API server is built

EVERYTHING = Path(__file__).parents[1] / "transparent_proxy" / "everything.py"
OBJECTS = """
apiVersion: v1
kind: Namespace
metadata: {name: run, labels: {kuma.io/sidecar-injection: enabled}}
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


class Node:
    """The Pods of a namespace, and a host that is in no mesh."""

    def __init__(self, kuma: Installed, runner: PodRunner, outsider: Host, service: str) -> None:
        self.kuma, self.runner, self.outsider, self.service = kuma, runner, outsider, service

    def apply(self, text: str) -> None:
        self.kuma.cluster.kubectl("apply", "-f", "-", text=text)

    def mesh(self, ca: str = "ca-1", mode: str = "STRICT") -> None:
        self.apply(MESH.replace("CA\n", f"{ca}\n").replace("MODE", mode))

    def pod(self, name: str) -> Running:
        self.apply(PODS.replace("NAME", name))
        return self.runner.run(name, "run")

    def status(self, caller: Host, url: str) -> str:
        """What a caller is answered, with the status in its last line; `000` if it is not answered."""
        return caller.run("timeout", "60", "curl", "-s", "-w", "\n%{http_code}", url, uid=1000, check=False)

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


@pytest.fixture(scope="module")
def node(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    # Of the networks for tests of networks (RFC 2544): this machine is on it, too, and needs its others.
    prefix = f"198.{18 + os.getpid() // 256 % 2}.{os.getpid() % 256}"
    with (
        tempfile.TemporaryDirectory() as made,
        installed(cluster, tmp_path_factory.mktemp("running")) as kuma,
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
        for kind in ("trafficpermissions", "meshtrafficpermissions"):  # of tests that had this cluster before
            cluster.kubectl("delete", kind, "--all", "--all-namespaces")
        cluster.kubectl("apply", "-f", "-", text=OBJECTS)
        until("there is a ServiceAccount", lambda: _has_account(cluster), kuma.processes)
        service = json.loads(cluster.kubectl("get", "service", "backend", "-n", "run", "-o", "json").stdout)
        app = (sys.executable, EVERYTHING, "8080,9090", "7070")
        runner = PodRunner(
            cluster, directory, switch, prefix, names,
            commands={"app": app, "kuma-init": (), "kuma-dp": (BIN / "kuma-dp",)},
            token=lambda pod: _token(cluster, pod),
            overrides={"KUMA_CONTROL_PLANE_URL": f"https://{control_plane}:{kuma.ports['dp']}"},
        )  # fmt: skip
        with runner.host() as outsider:
            found = Node(kuma, runner, outsider, f"http://{service['spec']['clusterIP']}")
            found.mesh()
            try:
                found.pod("backend")
                found.pod("web")
                yield found
            finally:
                runner.close()
                cluster.kubectl("delete", "namespace", "run", "--wait=false")


def _has_account(cluster: Cluster) -> bool:
    return not cluster.kubectl("get", "serviceaccount", "default", "-n", "run", check=False).returncode


def test_nobody_is_admitted_until_a_permission_says_so(node: Node) -> None:
    web = node.runner.pods["web"].host
    node.answers(web, node.service, "403")
    node.apply(PERMISSION)
    answer = node.answers(web, node.service, "200")
    assert "uri=spiffe://default/web_run_svc" in answer.lower()
    direct = node.answers(web, f"http://{node.runner.pods['backend'].address}:8080", "200")
    assert "uri=spiffe://default/web_run_svc" in direct.lower()


def test_plaintext_from_outside_the_mesh_is_let_in_by_permissive_only(node: Node) -> None:
    backend = node.runner.pods["backend"].address
    for port in (8080, 9090):
        node.answers(node.outsider, f"http://{backend}:{port}", "000")
    node.mesh(mode="PERMISSIVE")
    for port in (8080, 9090):
        node.answers(node.outsider, f"http://{backend}:{port}", "200")
    node.mesh()
    for port in (8080, 9090):
        node.answers(node.outsider, f"http://{backend}:{port}", "000")


def test_another_ca_is_applied_by_kubectl_and_no_call_fails(node: Node) -> None:
    web = node.runner.pods["web"].host
    node.mesh(ca="ca-2")

    def is_complete() -> bool | None:
        assert node.status(web, node.service).endswith("200")
        return _issued_by(node, "ca-2")

    until("all leaves are of the other CA", is_complete, node.kuma.processes)


def _issued_by(node: Node, backend: str) -> bool | None:
    found = node.kuma.get("/meshes/default/dataplanes+insights")
    issued = [d["dataplaneInsight"].get("mTLS", {}).get("issuedBackend") for d in found["items"]]
    return (len(issued) == 2 and set(issued) == {backend}) or None


def test_a_pod_that_is_killed_is_called_no_more(node: Node) -> None:
    web = node.runner.pods["web"].host
    node.runner.kill("backend")
    named = ("get", "dataplane", "backend", "-n", "run")
    gone = "its Dataplane is gone"
    until(gone, lambda: node.kuma.cluster.kubectl(*named, check=False).returncode or None, node.kuma.processes)
    assert not node.status(web, node.service).endswith("200")
    node.pod("backend")
    node.answers(web, node.service, "200")
