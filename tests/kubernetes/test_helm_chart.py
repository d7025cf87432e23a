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

from tools.kubernetes.build import HELM, VERSION, binaries
from tools.kubernetes.cluster import Cluster
from tools.kubernetes.installed import kumactl

pytestmark = pytest.mark.timeout(3600)  # the first test waits until helm is built

Objects = dict[tuple[str, str], dict[str, Any]]
Helm = Callable[..., str]


@pytest.fixture(scope="module")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    program, home = binaries(HELM) / "helm", tmp_path_factory.mktemp("helm")

    def run(*arguments: str | Path, refused: bool = False) -> str:
        environment = {**os.environ, "HOME": str(home)}
        done = subprocess.run(
            [program, *arguments], capture_output=True, text=True, check=False, env=environment
        )  # fmt: skip
        assert bool(done.returncode) == refused, done.stderr
        return done.stderr if refused else done.stdout

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


def test_values_choose_images_pods_and_how_many_there_are(helm: Helm, chart: Path, cluster: Cluster) -> None:
    """As the API server takes them."""
    values = {
        "image": {"repository": "cp", "tag": "3", "pullPolicy": "Always"},
        "autoscaling": {"enabled": True, "minReplicas": 3, "maxReplicas": 7, "targetCPUUtilizationPercentage": 60},
        "secrets": {"db": {"Env": "KUMA_Y", "Secret": "s", "Key": "k"}},
        "injectorFailurePolicy": "Ignore",
        "service": {"annotations": {"a.b/c": "d"}},
        "serviceAccountAnnotations": {"e": "f"},
        "deploymentAnnotations": {"g": "h"},
        "podDisruptionBudget": {"maxUnavailable": 2},
        "minReadySeconds": 5,
        "priorityClassName": "system-cluster-critical",
        "terminationGracePeriodSeconds": 60,
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {}}
        ],
    }
    sidecars = {"image": {"repository": "dp"}, "initImage": {"repository": "init", "tag": "4"}}
    text = helm("template", "kuma", chart, "--kube-version", VERSION, "--namespace", "default",
                "--set-json", f"controlPlane={json.dumps(values)}", "--set-json", f"dataPlane={json.dumps(sidecars)}",
                "--set", "global.image.registry=r.example,global.image.tag=2")  # fmt: skip
    cluster.kubectl("apply", "--dry-run=server", "--server-side", "--validate=strict", "-f", "-", text=text)
    found, name = by_name(text), "kuma-control-plane"
    spec = found["Deployment", name]["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    assert (container["image"], container["imagePullPolicy"]) == ("r.example/cp:3", "Always")
    images = [variable["value"] for key, variable in container["env"].items() if key.endswith("_IMAGE")]
    assert sorted(images) == ["r.example/dp:2", "r.example/init:4"]
    assert container["env"]["KUMA_Y"]["valueFrom"] == {"secretKeyRef": {"name": "s", "key": "k"}}
    assert ("replicas" in spec, spec["minReadySeconds"]) == (False, 5)
    scaled = found["HorizontalPodAutoscaler", name]["spec"]
    assert (scaled["minReplicas"], scaled["maxReplicas"], scaled["scaleTargetRef"]["name"]) == (3, 7, name)
    assert scaled["metrics"][0]["resource"]["target"]["averageUtilization"] == 60
    hooks = found["MutatingWebhookConfiguration", "kuma-admission-mutating-webhook-configuration"]["webhooks"]
    policies = {hook["clientConfig"]["service"]["path"]: hook["failurePolicy"] for hook in hooks}
    assert policies == {"/default-kuma-io-v1alpha1-mesh": "Fail", "/inject-sidecar": "Ignore"}
    assert found["Service", name]["metadata"]["annotations"] == {"a.b/c": "d"}
    assert found["ServiceAccount", name]["metadata"]["annotations"] == {"e": "f"}
    assert found["Deployment", name]["metadata"]["annotations"] == {"g": "h"}
    assert found["PodDisruptionBudget", name]["spec"]["maxUnavailable"] == 2
    assert pod["priorityClassName"] == "system-cluster-critical"
    assert pod["terminationGracePeriodSeconds"] == 60
    assert pod["topologySpreadConstraints"] == values["topologySpreadConstraints"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("controlPlane.replica=3", "at '/controlPlane': additional properties 'replica' not allowed"),
        ("controlplane.replicas=3", "additional properties 'controlplane' not allowed"),
        ("controlPlane.replicas=many", "at '/controlPlane/replicas': got string, want integer"),
        ("controlPlane.injectorFailurePolicy=ignore", "value must be one of 'Fail', 'Ignore'"),
        ("controlPlane.tls.general.secret=mine", "additional properties 'secret' not allowed"),
        ("controlPlane.secrets.db.Env=X", "at '/controlPlane/secrets/db': missing properties"),
        ("global.image.tags=1", "additional properties 'tags' not allowed"),
    ],
)
def test_a_value_that_nobody_knows_is_refused(helm: Helm, chart: Path, wrong: str, said: str) -> None:
    assert said in helm("template", "kuma", chart, "--kube-version", VERSION, "--set", wrong, refused=True)


@pytest.fixture
def released(helm: Helm, chart: Path, cluster: Cluster) -> Iterator[Callable[..., str]]:
    place = ("--namespace", "by-helm", "--kubeconfig", str(cluster.admin))
    yield lambda *arguments: helm(*arguments, *place)
    helm("uninstall", "kuma", "--ignore-not-found", *place)


def test_it_is_installed_upgraded_and_uninstalled(released: Callable[..., str], cluster: Cluster, chart: Path) -> None:
    """In a namespace of its own choice; values that have no effect are told, and the definitions stay."""
    others = "ingress.enabled=true,controlPlane.mode=global,controlPlane.tls.apiServer.secretName=x"
    said = released("install", "kuma", chart, "--create-namespace", "--set", others)
    for name in ("ingress", "controlPlane.mode", "controlPlane.tls.apiServer"):
        assert f"WARNING: the value {name} has no effect here." in said
    assert said.count("WARNING") == 3
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
