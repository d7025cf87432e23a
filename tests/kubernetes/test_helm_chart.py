"""The Helm chart installs what kumactl installs, with the values of the original's chart; by the real helm."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.kubernetes.installed import kumactl
from tools.kubernetes.build import HELM, VERSION, binaries
from tools.kubernetes.cluster import Cluster

pytestmark = pytest.mark.timeout(3600)  # the first test waits until helm is built

Objects = dict[tuple[str, str], dict[str, Any]]
Helm = Callable[..., str]


@pytest.fixture(scope="module")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    program, home = binaries(HELM) / "helm", tmp_path_factory.mktemp("helm")

    def run(*arguments: str | Path) -> str:
        environment = {**os.environ, "HOME": str(home)}
        done = subprocess.run(
            [program, *arguments], capture_output=True, text=True, check=False, env=environment
        )  # fmt: skip
        assert not done.returncode, done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="module")
def chart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("chart") / "kuma"
    kumactl("install", "helm-chart", directory)
    return directory


def by_name(text: str) -> Objects:
    """Objects by kind and name, with the variables of containers without their order."""
    found = {(one["kind"], one["metadata"]["name"]): one for one in yaml.safe_load_all(text) if one}
    for one in found.values():
        if one["kind"] == "Deployment":
            for container in one["spec"]["template"]["spec"]["containers"]:
                container["env"] = {variable["name"]: variable for variable in container["env"]}
    return found


@pytest.fixture
def rendered(helm: Helm, chart: Path) -> Callable[..., Objects]:
    def render(*arguments: str) -> Objects:
        kubernetes = ("--kube-version", VERSION, "--namespace", "kuma-system")
        return by_name(helm("template", "kuma", chart, *kubernetes, *arguments))

    return render


def test_the_chart_has_the_objects_that_kumactl_prints(rendered: Callable[..., Objects], chart: Path) -> None:
    printed = by_name(kumactl("install", "control-plane").stdout)
    definitions = by_name((chart / "crds" / "kuma.yaml").read_text())
    namespace = {("Namespace", "kuma-system"): printed["Namespace", "kuma-system"]}  # `--create-namespace` of helm
    assert {**namespace, **definitions, **rendered()} == printed


def test_values_are_those_of_the_original(rendered: Callable[..., Objects]) -> None:
    values = {
        "controlPlane": {
            "replicas": 3,
            "envVars": {"KUMA_ACCESS_ANONYMOUS_READS": "false", "KUMA_X": "a: b # c"},
            "logLevel": "debug",
            "defaults": {"skipMeshCreation": True},
            "resources": {"limits": {"memory": "2Gi"}},
            "service": {"type": "LoadBalancer"},
            "nodeSelector": {"kubernetes.io/os": "linux"},
            "tolerations": [{"operator": "Exists"}],
            "podAnnotations": {"a": "b"},
            "tls": {"general": {"secretName": "mine"}},
            "podDisruptionBudget": {"enabled": False},
            "networkPolicy": {"enabled": False},
        },
        "global": {"image": {"registry": "r.example/k", "tag": "1.2"}, "imagePullSecrets": [{"name": "pull"}]},
    }
    found = rendered("--set-json", "=".join(("controlPlane", json.dumps(values["controlPlane"]))),
                     "--set-json", "=".join(("global", json.dumps(values["global"]))))  # fmt: skip
    spec = found["Deployment", "kuma-control-plane"]["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    assert spec["replicas"] == 3
    assert container["image"] == "r.example/k/kuma-cp:1.2"
    assert container["resources"] == {"limits": {"memory": "2Gi"}, "requests": {"cpu": "500m", "memory": "256Mi"}}
    settings = {name: variable.get("value") for name, variable in container["env"].items()}
    assert settings["KUMA_ACCESS_ANONYMOUS_READS"] == "false"
    assert settings["KUMA_X"] == "a: b # c"
    assert settings["KUMA_GENERAL_LOG_LEVEL"] == "debug"
    assert settings["KUMA_DEFAULTS_SKIP_MESH_CREATION"] == "true"
    assert settings["KUMA_GENERAL_TLS_CERT_FILE"] == "/var/run/secrets/kuma.io/tls-cert/tls.crt"
    assert {"name": "tls", "secret": {"secretName": "mine"}} in pod["volumes"]
    assert container["volumeMounts"][-1]["mountPath"] == "/var/run/secrets/kuma.io/tls-cert"
    assert pod["nodeSelector"] == {"kubernetes.io/os": "linux"}
    assert pod["tolerations"] == [{"operator": "Exists"}]
    assert pod["imagePullSecrets"] == [{"name": "pull"}]
    assert spec["template"]["metadata"]["annotations"]["a"] == "b"
    assert found["Service", "kuma-control-plane"]["spec"]["type"] == "LoadBalancer"
    assert not {"PodDisruptionBudget", "NetworkPolicy"} & {kind for kind, _ in found}


@pytest.fixture
def released(helm: Helm, chart: Path, cluster: Cluster) -> Iterator[Callable[..., str]]:
    place = ("--namespace", "by-helm", "--kubeconfig", str(cluster.admin))
    yield lambda *arguments: helm(*arguments, *place)
    helm("uninstall", "kuma", "--ignore-not-found", *place)


def test_it_is_installed_upgraded_and_uninstalled(released: Callable[..., str], cluster: Cluster, chart: Path) -> None:
    """In a namespace of its own choice; values that have no effect are told, and the definitions stay."""
    said = released("install", "kuma", chart, "--create-namespace", "--set", "ingress.enabled=true")
    assert "WARNING: the value ingress has no effect here." in said
    kinds = "serviceaccount,role,rolebinding,service,deployment,poddisruptionbudget,networkpolicy"
    there = cluster.kubectl("get", kinds, "-n", "by-helm", "-o", "name").stdout
    assert "poddisruptionbudget.policy/kuma-control-plane" in there
    assert "networkpolicy.networking.k8s.io/kuma-control-plane" in there
    released("upgrade", "kuma", chart, "--set", "controlPlane.replicas=3")
    deployment = json.loads(cluster.kubectl("get", "deployment", "-n", "by-helm", "-o", "json").stdout)["items"][0]
    assert deployment["spec"]["replicas"] == 3
    hook = "validatingwebhookconfiguration/kuma-validating-webhook-configuration"
    found = json.loads(cluster.kubectl("get", hook, "-o", "json").stdout)["webhooks"][0]
    assert found["clientConfig"]["service"]["namespace"] == "by-helm"
    assert "system:serviceaccount:by-helm:kuma-control-plane" in found["matchConditions"][0]["expression"]
    released("uninstall", "kuma")
    assert cluster.kubectl("get", hook, check=False).returncode
    assert not cluster.kubectl("get", "crd", "meshes.kuma.io", check=False).returncode
