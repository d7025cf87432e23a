"""Pods that run with the sidecars that they are given: real Envoys, redirected by the kernel, called as ever."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from demo import kubernetes
from demo.processes import PATIENCE, until
from demo.steps import Printed
from tools.kubernetes.cluster import Cluster
from tools.kubernetes.node import HOSTS, MESH, Node, node_of
from tools.kubernetes.pod_runner import Running

pytestmark = pytest.mark.timeout(3600)  # the first test waits until the API server is built


@pytest.fixture(scope="module")
def node(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with node_of(cluster, tmp_path_factory.mktemp("running")) as found:
        yield found


def test_the_demo_shows_what_it_claims(node: Node) -> None:
    """Default deny, a permission, PERMISSIVE, rotation, another CA, a killed leader; the tests below go on there."""
    # Of rotations, the one that a shorter life asks for: on a slow machine leaves would expire that live for seconds.
    kubernetes.walk_through(Printed(), node, lifetime=3600, rotations=0)


def test_proxies_are_served_while_the_api_server_is_away_and_nothing_is_lost(node: Node) -> None:
    """For longer than a leader may change things: it leads again afterwards, and has missed nothing."""
    leader = "second"  # as the demo has left it
    with node.calls(node.runner.pods["web"].host, node.address) as calls:
        calls.begin()
        with node.kuma.cluster.away():
            until("it changes nothing", lambda: "and changes nothing" in node.kuma.log(leader), node.kuma.processes)
            assert set(calls.go_on()) == {"200"}
            served = lambda: "connected_state: 1" in administration(node.runner.pods["web"], "stats")  # noqa: E731
            until("it serves", served, node.kuma.processes)
        node.change(ca="ca-2")
        node.until_issued_by("ca-2")
        assert set(calls.go_on()) == {"200"}
    assert node.kuma.log(leader).count("this control plane leads") == 1


def test_a_control_plane_is_replaced_in_the_middle_of_a_change_and_no_call_fails(node: Node) -> None:
    """It is ended in good order while another one waits, as by an upgrade."""
    kuma = node.kuma
    assert kuma.process is not None
    with node.calls(node.runner.pods["web"].host, node.address) as calls:
        calls.begin()
        before, kuma.process = kuma.process, kuma.start_beside("third", HOSTS[0])
        node.mesh(ca="ca-1")
        kuma.processes.stop(before, PATIENCE)
        node.until_issued_by("ca-1")
        assert set(calls.go_on()) == {"200"}


def test_a_dual_stack_pod_is_called_by_mutual_tls_at_its_second_address_too(node: Node) -> None:
    """As callers are that a headless Service tells of it. In plaintext it is not; nor at its other ports."""
    web, backend = (node.runner.pods[name].host for name in ("web", "backend"))
    found = node.answers(web, f"http://[{backend.address6}]:8080", "200")
    assert "URI=spiffe://default/web_run_svc" in found
    for port in (8080, 9090):
        node.answers(node.outsider, f"http://[{backend.address6}]:{port}", "000")


EARLIER = Path(__file__).parents[1] / "earlier" / "kuma-04082d1.tar.xz"
"""The code of a control plane as it was at a commit of 2026-11-26, with the dependencies of today."""


def test_control_planes_of_two_versions_take_over_from_each_other_and_no_call_fails(node: Node, tmp_path: Path) -> None:
    """As by an upgrade that is undone, and done after all. Each changes the CA; who waits tells of the other one."""
    kuma = node.kuma
    assert kuma.process is not None
    with tarfile.open(EARLIER) as code:
        code.extractall(tmp_path, filter="data")
    with node.calls(node.runner.pods["web"].host, node.address) as calls:
        calls.begin()
        older = kuma.start_beside("older", HOSTS[1], source=tmp_path / "src")
        kuma.processes.stop(kuma.process, PATIENCE)
        node.change(ca="ca-2")
        node.until_issued_by("ca-2")
        kuma.process = kuma.start_beside("fourth", HOSTS[0])
        told = "the control plane that leads is of another version"
        until("it is told", lambda: told in kuma.log("fourth"), kuma.processes)
        node.mesh(ca="ca-1")
        kuma.processes.stop(older, PATIENCE)
        node.until_issued_by("ca-1")
        assert set(calls.go_on()) == {"200"}
    assert (
        kuma.log("older").count("this control plane leads") == kuma.log("fourth").count("this control plane leads") == 1
    )


PAGE = Path(__file__).parents[3] / "docs" / "kubernetes.md"
DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop, namespace: run}
spec:
  replicas: 1
  strategy: {rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}, annotations: {of: "VERSION"}}
    spec:
      containers:
      - name: app
        image: app
        ports: [{containerPort: 8080}, {containerPort: 9090}]
        readinessProbe: {httpGet: {path: /health, port: 8080}}
---
apiVersion: v1
kind: Service
metadata: {name: shop, namespace: run}
spec:
  selector: {app: shop}
  ports: [{name: a, port: 80, targetPort: 8080, appProtocol: http}, {name: b, port: 81, targetPort: 9090}]
"""


def test_a_rolling_update_fails_no_call(node: Node) -> None:
    """Of HTTP, and of TCP with a handshake for each call, at a workload that ends as soon as it is told to.

    It is told to once callers have been sent elsewhere: that is waited for by a hook that it is given.
    """
    web, runner = node.runner.pods["web"], node.runner

    def has_left(pod: Running, seconds: int) -> None:
        """The sleep of the hook, and until the caller's Envoy has no endpoint of the Pod any more."""
        until(
            "the Pod is called no more",
            lambda: f"{pod.address}:" not in administration(web, "clusters"),
            node.kuma.processes,
        )

    runner.hook = has_left
    with runner.following("run"), ExitStack() as stack:
        node.apply(DEPLOYMENT.replace("VERSION", "1"))
        until("there is a Pod", lambda: node.rolled_out("shop"), node.kuma.processes)
        address = node.address_of("shop")
        both = [stack.enter_context(node.calls(web.host, address, port)) for port in (80, 81)]
        for calls in both:
            calls.begin()
        (before,) = (name for name in runner.pods if name.startswith("shop-"))
        node.apply(DEPLOYMENT.replace("VERSION", "2"))
        until("there is another Pod", lambda: node.rolled_out("shop"), node.kuma.processes)
        until("the old one has ended", lambda: before not in runner.pods, node.kuma.processes)
        for calls in both:
            assert set(calls.go_on()) == {"200"}
        node.kuma.cluster.kubectl("delete", "deployment", "shop", "-n", "run")
        until("it has gone", lambda: set(runner.pods) == {"web", "backend"}, node.kuma.processes)


def commands_of(section: str) -> list[str]:
    """The commands in a section of the page."""
    text = PAGE.read_text().partition(f"## {section}\n")[2].partition("\n## ")[0]
    return re.findall(r"^((?:kubectl|kumactl) .*?)(?:  +#.*)?$", text, re.MULTILINE)


def test_a_namespace_moves_into_the_mesh_by_the_commands_of_the_page(node: Node, tmp_path: Path) -> None:
    """It calls and is called at every moment; who is still in plaintext is told before STRICT cuts it off."""
    cluster, runner = node.kuma.cluster, node.runner
    web, backend = runner.pods["web"], runner.pods["backend"]
    permit, label, restart, wait, look, preview, close = commands_of("Migrating namespace by namespace")
    for name in ("PERMISSIVE", "STRICT"):
        (tmp_path / f"{name.lower()}.yaml").write_text(MESH.replace("CA\n", "ca-1\n").replace("MODE", name))
    run = partial(node.run, directory=tmp_path)
    cluster.kubectl("create", "namespace", "shop")
    node.until_account("shop")
    node.apply(DEPLOYMENT.replace("namespace: run", "namespace: shop"))  # nothing is added to its first Pod
    try:
        with runner.following("shop"):
            until("there is a Pod", lambda: node.rolled_out("shop", "shop"), node.kuma.processes)
            (old,) = (pod for name, pod in runner.pods.items() if name.startswith("shop-"))
            run(permit)
            with node.calls(old.host, backend.address, 8080) as plaintext:
                plaintext.begin()
                node.answers(web.host, f"http://{old.address}:8080", "200")
                for command in (label, restart, wait):
                    run(command)
                until("the old Pod has ended", lambda: old not in runner.pods.values(), node.kuma.processes)
                assert set(plaintext.go_on()) == {"200"}
                until("it is told", lambda: old.address in run(look), node.kuma.processes)
                assert old.address in run(preview, status=2)
            (new,) = (pod for name, pod in runner.pods.items() if name.startswith("shop-"))
            for command in ("true", close):
                run(command)
                assert "URI=spiffe://default/shop_shop_svc_80" in node.answers(new.host, node.service, "200")
                node.answers(web.host, f"http://{node.address_of('shop', 'shop')}", "200")
            node.answers(node.outsider, f"http://{new.address}:8080", "000")
    finally:
        cluster.kubectl("delete", "namespace", "shop", "--wait=false")


def administration(pod: Running, what: str) -> str:
    """What an Envoy says of itself."""
    return pod.host.run("curl", "-s", f"http://127.0.0.1:9901/{what}")


def job(name: str, template: dict[str, Any]) -> str:
    spec = {"backoffLimit": 0, "template": template}
    return json.dumps(
        {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "namespace": "run"}, "spec": spec}
    )


def with_ordinary_sidecar(node: Node, template: dict[str, Any]) -> dict[str, Any]:
    """A Pod as it is injected where there are no native sidecars: the sidecar is the first of its containers."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "tried", "namespace": "run"},
        "spec": template["spec"],
    }
    tried = node.kuma.cluster.kubectl("create", "--dry-run=server", "-o", "json", "-f", "-", text=json.dumps(pod))
    found = json.loads(tried.stdout)
    init, sidecar = found["spec"]["initContainers"]
    ordinary = {name: value for name, value in sidecar.items() if name not in ("restartPolicy", "startupProbe")}
    spec = {**found["spec"], "initContainers": [init], "containers": [ordinary, *found["spec"]["containers"]]}
    return {"metadata": {"annotations": found["metadata"]["annotations"]}, "spec": spec}


def test_jobs_end_with_their_work_whatever_their_sidecar_is(node: Node) -> None:
    """They call a service through the mesh, and end. Their Dataplanes go."""
    call = ("-sf", "-o", "/dev/null", "--retry", "100", "--retry-delay", "1", "--retry-all-errors", node.service)
    container = {"name": "work", "image": "curl", "args": list(call)}
    template = {"spec": {"restartPolicy": "Never", "containers": [container]}}

    def states() -> dict[str, str]:
        found = node.kuma.cluster.ask("GET", "/apis/batch/v1/namespaces/run/jobs")["items"]
        return {one["metadata"]["name"]: one["status"].get("conditions", [{}])[-1].get("type", "") for one in found}

    with node.runner.following("run"):
        node.apply(job("native", template))
        node.apply(job("ordinary", with_ordinary_sidecar(node, template)))
        done = {"native": "Complete", "ordinary": "Complete"}
        until("both have ended", lambda: states() == done, node.kuma.processes)

    def dataplanes() -> set[str]:
        found = node.kuma.cluster.ask("GET", "/apis/kuma.io/v1alpha1/namespaces/run/dataplanes")["items"]
        return {one["metadata"]["name"] for one in found}

    until("their Dataplanes have gone", lambda: dataplanes() == {"web", "backend"}, node.kuma.processes)


def test_a_pod_that_is_killed_is_called_no_more(node: Node) -> None:
    web = node.runner.pods["web"].host
    node.runner.kill("backend")
    named = ("get", "dataplane", "backend", "-n", "run")
    gone = "its Dataplane is gone"
    until(gone, lambda: node.kuma.cluster.kubectl(*named, check=False).returncode or None, node.kuma.processes)
    assert not node.status(web, node.service).endswith("200")
    node.pod("backend")
    node.answers(web, node.service, "200")
