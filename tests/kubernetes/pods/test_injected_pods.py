"""Pods that kubectl creates come back from the API server with their sidecars."""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import httpx
import pytest
import yaml

from demo.processes import BIN, PATIENCE, free_ports, until
from tests.kubernetes.kubectl import metrics_of
from tools.kubernetes.cluster import Cluster
from tools.kubernetes.installed import NAMESPACE, Installed, installed

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


def test_annotations_without_effect_are_told_by_an_event_of_the_pod_too(kuma: Installed) -> None:
    """For whoever creates Pods by a controller, which sees no warning; it is counted."""
    given = pod("patched", annotations={"kuma.io/container-patches": "mine", "kuma.io/sidecar-drain-tme": "1s"})
    kuma.cluster.kubectl("apply", "-f", "-", text=given)

    def told() -> str:
        chosen = "--field-selector=involvedObject.name=patched,reason=KumaAnnotationsWithoutEffect"
        return kuma.cluster.kubectl("get", "events", "-n", "shop", chosen).stdout

    until("it is told", lambda: "did you mean kuma.io/sidecar-drain-time?" in told(), kuma.processes)
    assert "annotation kuma.io/container-patches has no effect here" in told()
    counted = r"^kuma_kubernetes_pods_with_annotations_without_effect_total [1-9]"
    assert re.search(counted, metrics_of(kuma), re.M)


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


MESH = """
apiVersion: kuma.io/v1alpha1
kind: Mesh
metadata: {name: default}
spec: {mtls: {enabledBackend: ca-1, backends: [{name: ca-1, type: builtin}]}}
---
apiVersion: v1
kind: Service
metadata: {name: shelf, namespace: shop}
spec: {selector: {app: shelf}, ports: [{port: 80, targetPort: 8080, appProtocol: http}]}
"""
AUDIENCE = "kuma-control-plane.kuma-system"


def runs(kuma: Installed, name: str, address: str, namespace: str = "shop", **more: Any) -> dict[str, Any]:
    """A Pod that a kubelet would have started, once it has its Dataplane."""
    cluster = kuma.cluster
    cluster.kubectl("apply", "-f", "-", text=pod(name, namespace, **more))
    status = {"status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}}
    patch = ("patch", "pod", name, "-n", namespace, "--subresource=status", "--type=merge", "-p", json.dumps(status))
    cluster.kubectl(*patch)
    found = shown(cluster, name, namespace)
    if found["metadata"]["annotations"].get("kuma.io/sidecar-injected") == "true":
        named = ("get", "dataplane", name, "-n", namespace)
        until("there is a Dataplane", lambda: not cluster.kubectl(*named, check=False).returncode, kuma.processes)
    return found


def token_of(kuma: Installed, found: dict[str, Any], audience: str = AUDIENCE, *, bound: bool = True) -> str:
    """A token as the kubelet asks for it."""
    name, namespace, uid = (found["metadata"][field] for field in ("name", "namespace", "uid"))
    to_pod = ("--bound-object-kind=Pod", f"--bound-object-name={name}", f"--bound-object-uid={uid}") if bound else ()
    asked = ("create", "token", "default", "-n", namespace, f"--audience={audience}", *to_pod)
    return kuma.cluster.kubectl(*asked).stdout.strip()


def bootstrap(kuma: Installed, name: str, token: str, brought: str = "") -> tuple[int, str]:
    """What the control plane answers to a proxy that says it is this Dataplane's."""
    ca = ssl.create_default_context(cafile=kuma.directory / "kuma-cp" / "ca.crt")
    body = {"mesh": "default", "name": name, "dataplaneToken": token, "dataplaneResource": brought}
    url = f"https://localhost:{kuma.ports['dp']}/bootstrap"
    answer = httpx.post(url, json=body, verify=ca, timeout=PATIENCE, trust_env=False)
    return answer.status_code, answer.text


def admitted(kuma: Installed, name: str, token: str) -> None:
    """Returns once a proxy is admitted: the control plane may learn of its Pod or Dataplane a moment later."""
    until(f"{name} is admitted", lambda: bootstrap(kuma, name, token)[0] == 200, kuma.processes)


def shut_out(kuma: Installed, name: str, token: str, said: str, brought: str = "") -> None:
    """Returns once a proxy is refused with these words; it is never admitted."""

    def is_refused() -> bool:
        status, text = bootstrap(kuma, name, token, brought)
        assert status != 200, said
        return status == 422 and said in text

    until(f"{name} is refused: {said}", is_refused, kuma.processes)


def test_a_pod_is_its_own_dataplane_and_no_other(kuma: Installed) -> None:
    kuma.cluster.kubectl("apply", "-f", "-", text=MESH)
    shelf, other = runs(kuma, "shelf", "10.9.9.31"), runs(kuma, "other", "10.9.9.32")
    bare = runs(kuma, "bare", "10.9.9.33", namespace="plain")
    own = token_of(kuma, shelf)
    admitted(kuma, "shelf.shop", own)
    shut_out(kuma, "other.shop", own, "proxy name from requestor: other.shop is different")
    shut_out(kuma, "shelf.shop", token_of(kuma, other), "proxy name from requestor: shelf.shop is different")
    shut_out(kuma, "shelf.shop", token_of(kuma, shelf, "https://kubernetes.default.svc"), "does not hold")
    shut_out(kuma, "shelf.shop", token_of(kuma, shelf, bound=False), "has to be bound to a Pod")
    shut_out(kuma, "shelf.shop", own[:-4] + "AAAA", "does not hold")
    shut_out(kuma, "shelf.shop", "no-token", "does not hold")
    shut_out(kuma, "bare.plain", token_of(kuma, bare), "has no sidecar")
    inbound = {"port": 8080, "servicePort": 9080, "tags": {"kuma.io/service": "other_shop_svc"}}
    brought = {
        "type": "Dataplane", "mesh": "default", "name": "shelf.shop",
        "networking": {"address": "10.9.9.31", "inbound": [inbound]},
    }  # fmt: skip
    shut_out(kuma, "shelf.shop", own, "none may be brought along", json.dumps(brought))
    kuma.cluster.kubectl("delete", "pod", "shelf", "-n", "shop", "--force", "--grace-period=0")
    until("the token of a Pod that is gone does not hold", lambda: bootstrap(kuma, "shelf.shop", own)[0] == 422)


def test_without_reviews_proxies_are_told_to_try_again(kuma: Installed) -> None:
    """RBAC that lacks a verb is no reason to take anybody for an impostor."""
    kuma.cluster.kubectl("apply", "-f", "-", text=MESH)
    token = token_of(kuma, runs(kuma, "patient", "10.9.9.34"))
    role = ("clusterrole", "kuma-control-plane")
    before = json.loads(kuma.cluster.kubectl("get", *role, "-o", "json").stdout)["rules"]
    without = [rule for rule in before if "tokenreviews" not in rule["resources"]]
    try:
        kuma.cluster.kubectl("patch", *role, "--type=merge", "-p", json.dumps({"rules": without}))
        until("reviews are refused", lambda: bootstrap(kuma, "patient.shop", token)[0] == 503, kuma.processes)
    finally:
        kuma.cluster.kubectl("patch", *role, "--type=merge", "-p", json.dumps({"rules": before}))
    until("reviews are made", lambda: bootstrap(kuma, "patient.shop", token)[0] == 200, kuma.processes)


def expanded(container: dict[str, Any], of_pod: Mapping[str, str]) -> dict[str, str]:
    """The environment of a container, as the kubelet makes it."""
    found: dict[str, str] = {}
    for one in container["env"]:
        value = of_pod[one["valueFrom"]["fieldRef"]["fieldPath"]] if "valueFrom" in one else one.get("value", "")
        found[one["name"]] = re.sub(r"\$\((\w+)\)", lambda name: found.get(name[1], name[0]), value)
    return found


def identities(admin: int) -> list[str]:
    """The SPIFFE IDs that an Envoy has certificates for."""
    try:
        answer = httpx.get(f"http://127.0.0.1:{admin}/certs", timeout=PATIENCE, trust_env=False).json()
    except (httpx.HTTPError, ValueError):
        return []
    chains = (chain for one in answer.get("certificates", ()) for chain in one.get("cert_chain", ()))
    return [name["uri"] for chain in chains for name in chain.get("subject_alt_names", ()) if "uri" in name]


def test_the_injected_sidecar_gets_the_identity_of_its_pod_and_loses_its_stream_with_it(kuma: Installed) -> None:
    """kuma-dp with the environment, arguments and token that the injected container has, and a real Envoy."""
    cluster = kuma.cluster
    cluster.kubectl("apply", "-f", "-", text=MESH)
    admin, inbound, outbound, readiness = free_ports(4)
    said = {
        "kuma.io/envoy-admin-port": str(admin),
        "kuma.io/sidecar-env-vars": f"KUMA_READINESS_PORT={readiness}",  # other proxies run on this machine
    }
    found = runs(kuma, "rack", "10.9.9.35", labels={"app": "shelf"}, annotations=said)
    ports = {"inbound": inbound, "outbound": outbound}
    named = [f"kuma.io/transparent-proxying-{which}-port={port}" for which, port in ports.items()]
    cluster.kubectl("annotate", "pod", "rack", "-n", "shop", "--overwrite", *named)
    (sidecar,) = (one for one in found["spec"]["initContainers"] if one["name"] == "kuma-sidecar")
    # This machine does not have the address of the Pod: kuma-dp tells its readiness at another one.
    fields = {"metadata.name": "rack", "metadata.namespace": "shop", "status.podIP": "127.0.0.35"}
    file = kuma.directory / "token"
    file.write_text(token_of(kuma, found))
    environment = {
        **expanded(sidecar, fields),
        "KUMA_CONTROL_PLANE_URL": f"https://localhost:{kuma.ports['dp']}",  # this machine has no names of Services
        "KUMA_DATAPLANE_RUNTIME_TOKEN_PATH": str(file),
    }
    process = kuma.processes.start("sidecar", [BIN / "kuma-dp", *sidecar["args"]], environment)
    own = "spiffe://default/shelf_shop_svc_80"
    until("its Envoy has its identity", lambda: own in identities(admin), kuma.processes)
    assert _told(readiness, "live") == "LIVE"
    until("it is ready", lambda: _told(readiness, "ready") == "READY", kuma.processes)
    cluster.kubectl("delete", "pod", "rack", "-n", "shop", "--force", "--grace-period=0")
    until("its stream is ended", lambda: "is of Pod rack.shop, which is gone" in kuma.processes.tail("kuma-cp", 50))
    kuma.processes.stop(process)


def _told(readiness: int, path: str) -> str:
    return httpx.get(f"http://127.0.0.35:{readiness}/{path}", timeout=PATIENCE, trust_env=False).text.strip()
