"""Pods that kubectl creates come back from the API server with their sidecars."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import yaml

from demo.processes import until
from tests.kubernetes.installed import NAMESPACE, Installed, installed
from tools.kubernetes.cluster import Cluster

pytestmark = pytest.mark.timeout(3600)  # the first test waits until the API server is built

SHOP = """
apiVersion: kuma.io/v1alpha1
kind: Mesh
metadata: {name: default}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Namespace
metadata: {name: plain}
"""


@pytest.fixture(scope="module")
def kuma(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    with installed(cluster, tmp_path_factory.mktemp("injection")) as found:
        cluster.kubectl("apply", "-f", "-", text=SHOP)
        cluster.kubectl("label", "namespace", "shop", "kuma.io/sidecar-injection=enabled")

        def has_account(namespace: str) -> bool:
            return not cluster.kubectl("get", "serviceaccount", "default", "-n", namespace, check=False).returncode

        for namespace in ("shop", "plain", NAMESPACE, "kube-system"):
            until("there is a ServiceAccount", partial(has_account, namespace), found.processes)
        yield found
        cluster.kubectl("delete", "namespace", "shop", "plain", "--wait=false")
        cluster.kubectl("delete", "mesh", "default", "--wait=false", check=False)


def pod(name: str, namespace: str = "shop", **more: Any) -> str:
    labels, annotations = more.pop("labels", {}), more.pop("annotations", {})
    restricted = {
        "allowPrivilegeEscalation": False, "runAsNonRoot": True, "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }  # fmt: skip
    container = {
        "name": "app", "image": "app", "securityContext": restricted,
        "ports": [{"containerPort": 8080}], "readinessProbe": {"httpGet": {"path": "/health", "port": 8080}},
    }  # fmt: skip
    metadata = {"name": name, "namespace": namespace, "labels": labels, "annotations": annotations}
    spec = {"containers": [container], **more}
    return yaml.safe_dump({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})


def shown(cluster: Cluster, name: str, namespace: str = "shop") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(cluster.kubectl("get", "pod", name, "-n", namespace, "-o", "json").stdout)
    return found


def containers(found: dict[str, Any]) -> list[str]:
    return [one["name"] for part in ("initContainers", "containers") for one in found["spec"].get(part, ())]


def test_a_pod_of_a_labelled_namespace_comes_back_with_its_sidecar(kuma: Installed) -> None:
    cluster = kuma.cluster
    cluster.kubectl("apply", "-f", "-", text=pod("web"))
    found = shown(cluster, "web")
    assert containers(found) == ["kuma-init", "kuma-sidecar", "app"]
    redirecting, sidecar = found["spec"]["initContainers"]
    assert redirecting["image"] == "docker.io/kuma-mtls/kuma-init:test"
    assert (sidecar["image"], sidecar["restartPolicy"]) == ("docker.io/kuma-mtls/kuma-dp:test", "Always")
    assert found["metadata"]["annotations"]["kuma.io/sidecar-injected"] == "true"
    values = {one["name"]: one.get("value", "") for one in sidecar["env"]}
    assert values["KUMA_CONTROL_PLANE_CA_CERT"] == (kuma.directory / "kuma-cp" / "ca.crt").read_text()
    again = yaml.safe_dump({**found, "metadata": {**found["metadata"], "name": "copy", "resourceVersion": ""}})
    assert "Warning" not in cluster.kubectl("create", "-f", "-", text=again).stderr
    assert shown(cluster, "copy")["spec"]["initContainers"] == found["spec"]["initContainers"]


def test_pods_of_a_deployment_have_sidecars(kuma: Installed) -> None:
    cluster = kuma.cluster
    cluster.kubectl("create", "deployment", "api", "--image=app", "--replicas=2", "-n", "shop")

    def made() -> list[dict[str, Any]]:
        listed = cluster.kubectl("get", "pods", "-n", "shop", "-l", "app=api", "-o", "json").stdout
        return list(json.loads(listed)["items"])

    until("there are two Pods", lambda: len(made()) == 2, kuma.processes)
    assert [containers(one) for one in made()] == [["kuma-init", "kuma-sidecar", "app"]] * 2


@pytest.mark.parametrize(
    ("name", "namespace", "label", "injected"),
    [
        ("asked", "plain", "enabled", True),
        ("unasked", "plain", None, False),
        ("against", "shop", "disabled", False),
        ("home", NAMESPACE, "enabled", False),
        ("system", "kube-system", "enabled", False),
    ],
)
def test_pod_and_namespace_say_which_pods_have_one(
    kuma: Installed, name: str, namespace: str, label: str | None, injected: bool
) -> None:
    labels = {"kuma.io/sidecar-injection": label} if label else {}
    until(  # of kube-system: its ServiceAccount comes some time after the start
        "the Pod is taken",
        lambda: (
            not kuma.cluster.kubectl(
                "apply", "-f", "-", text=pod(name, namespace, labels=labels), check=False
            ).returncode
        ),
    )
    found = containers(shown(kuma.cluster, name, namespace))
    assert found == (["kuma-init", "kuma-sidecar", "app"] if injected else ["app"])


def refused(kuma: Installed, text: str) -> str:
    done = kuma.cluster.kubectl("apply", "-f", "-", text=text, check=False)
    assert done.returncode, done.stdout
    return done.stderr


def test_what_is_wrong_is_refused_with_its_field(kuma: Installed) -> None:
    typo = pod("typo", "plain", labels={"kuma.io/sidecar-injection": "enable"})
    assert 'has wrong value "enable"' in refused(kuma, typo)
    absent = refused(kuma, pod("absent", annotations={"kuma.io/mesh": "absent"}))
    assert 'metadata.annotations["kuma.io/mesh"]: meshes.kuma.io "absent" not found' in absent
    assert "soon" in refused(kuma, pod("soon", annotations={"kuma.io/sidecar-drain-time": "soon"}))


def test_warnings_are_told_by_kubectl(kuma: Installed) -> None:
    given = pod("warned", annotations={"kuma.io/sidecar-drain-tme": "1s"})
    said = kuma.cluster.kubectl("apply", "-f", "-", text=given).stderr
    assert "Warning: annotation kuma.io/sidecar-drain-tme is not known" in said


def test_a_pod_with_the_network_of_its_node_is_left_alone_and_that_is_told(kuma: Installed) -> None:
    cluster = kuma.cluster
    said = cluster.kubectl("apply", "-f", "-", text=pod("node-agent", hostNetwork=True)).stderr
    assert "Warning: no sidecar is injected into this Pod: it has the network of its node" in said
    assert containers(shown(cluster, "node-agent")) == ["app"]

    def events() -> list[dict[str, Any]]:
        chosen = "--field-selector=involvedObject.name=node-agent,reason=KumaSidecarNotInjected"
        return list(json.loads(cluster.kubectl("get", "events", "-n", "shop", chosen, "-o", "json").stdout)["items"])

    (told,) = until("an event tells", events, kuma.processes)
    assert told["type"] == "Warning"
    assert "it has the network of its node" in told["message"]


def test_a_dry_run_shows_the_sidecar(kuma: Installed) -> None:
    tried = kuma.cluster.kubectl("apply", "--dry-run=server", "-o", "json", "-f", "-", text=pod("tried")).stdout
    assert containers(json.loads(tried)) == ["kuma-init", "kuma-sidecar", "app"]


def test_without_a_control_plane_no_pod_starts_without_its_sidecar(kuma: Installed) -> None:
    """Only where there should be one: everybody else goes on."""
    kuma.kill()
    try:
        assert "namespace-kuma-injector.kuma.io" in refused(kuma, pod("early"))
        kuma.cluster.kubectl("apply", "-f", "-", text=pod("elsewhere", "plain"))
    finally:
        kuma.run()
    kuma.cluster.kubectl("apply", "-f", "-", text=pod("early"))
    assert "kuma-sidecar" in containers(shown(kuma.cluster, "early"))
