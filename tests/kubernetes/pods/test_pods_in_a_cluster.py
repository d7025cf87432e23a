"""Pods, their Services and their Dataplanes, which nobody else writes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from demo.processes import until
from tests.kubernetes.kubectl import apply, mesh, metrics_of, refused
from tools.kubernetes.cluster import Cluster
from tools.kubernetes.installed import Installed, installed

pytestmark = pytest.mark.timeout(3600)  # the first test waits until the API server is built


@pytest.fixture(scope="module")
def kuma(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    with installed(cluster, tmp_path_factory.mktemp("control-plane")) as found:
        yield found


_UNASKED = ("--as", "system:serviceaccount:kube-system:generic-garbage-collector")
"""Somebody of whose changes the webhooks are not asked."""


def pod(name: str, **annotations: str) -> str:
    """A Pod as it is after injection; nothing runs it here."""
    containers = [
        {"name": "app", "image": "app", "ports": [{"name": "main", "containerPort": 8080}]},
        {"name": "kuma-sidecar", "image": "kuma-dp"},
    ]
    metadata = {"name": name, "namespace": "market", "labels": {"app": "web"}}
    metadata |= {"annotations": {"kuma.io/sidecar-injected": "true", "kuma.io/mesh": "market", **annotations}}
    return yaml.safe_dump(
        {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": containers}}
    )  # fmt: skip


def service(name: str, **port: Any) -> str:
    ports = [{"port": 80, "targetPort": "main", **port}]
    spec = {"selector": {"app": "web"}, "ports": ports}
    metadata = {"name": name, "namespace": "market"}
    return yaml.safe_dump({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})


def runs(cluster: Cluster, name: str, address: str, *more: str, ready: bool = True) -> None:
    """What the kubelet would say of a Pod."""
    statuses = [
        {"name": n, "ready": ready, "restartCount": 0, "image": n, "imageID": n} for n in ("app", "kuma-sidecar")
    ]  # fmt: skip
    status = {"phase": "Running", "podIP": address, "containerStatuses": statuses}
    status["podIPs"] = [{"ip": one} for one in (address, *more)]
    cluster.kubectl(
        "patch",
        "pod",
        name,
        "-n",
        "market",
        "--subresource=status",
        "--type=merge",
        "-p",
        json.dumps({"status": status}),
    )


def dataplane(cluster: Cluster, name: str) -> dict[str, Any]:
    """The Dataplane of a Pod; empty if there is none."""
    done = cluster.kubectl("get", "dataplane", name, "-n", "market", "-o", "json", check=False)
    found: dict[str, Any] = json.loads(done.stdout) if not done.returncode else {}
    return found


def services(cluster: Cluster, name: str) -> list[str]:
    inbound = dataplane(cluster, name).get("spec", {}).get("networking", {}).get("inbound", [])
    return [one["tags"]["kuma.io/service"] for one in inbound]


@pytest.fixture(scope="module")
def market(kuma: Installed) -> Iterator[Installed]:
    kuma.cluster.kubectl("create", "namespace", "market")
    until("accounts are there", lambda: not kuma.cluster.kubectl(
        "get", "serviceaccount", "default", "-n", "market", check=False
    ).returncode)  # fmt: skip
    apply(kuma.cluster, mesh("market"))
    yield kuma
    kuma.cluster.kubectl("delete", "namespace", "market")
    kuma.cluster.kubectl(*_UNASKED, "delete", "mesh", "market")


def test_a_pod_has_the_dataplane_that_it_and_its_services_say(market: Installed) -> None:
    """Whoever changes any of them: a Service that comes later, who edits or deletes it unasked, a Pod that ends."""
    cluster = market.cluster
    apply(cluster, pod("web-1"))
    runs(cluster, "web-1", "10.1.0.1")
    until("it has an identity", lambda: services(cluster, "web-1") == ["web-1_market_svc"], market.processes)
    apply(cluster, service("web", appProtocol="http"))
    until("its Service counts", lambda: services(cluster, "web-1") == ["web_market_svc_80"], market.processes)
    apply(cluster, service("also"))
    both = ["also_market_svc_80", "web_market_svc_80"]
    until("it is another Service's, too", lambda: services(cluster, "web-1") == both, market.processes)
    cluster.kubectl("delete", "service", "also", "-n", "market")
    until("it is one alone", lambda: services(cluster, "web-1") == both[1:], market.processes)
    cluster.kubectl("label", "pod", "web-1", "-n", "market", "app=other", "--overwrite")
    until("it is no Service's", lambda: services(cluster, "web-1") == ["web-1_market_svc"], market.processes)
    cluster.kubectl("label", "pod", "web-1", "-n", "market", "app=web", "tier=gold", "--overwrite")
    until("it is one's again", lambda: services(cluster, "web-1") == both[1:], market.processes)
    assert dataplane(cluster, "web-1")["spec"]["networking"]["inbound"][0]["tags"]["tier"] == "gold"
    found = dataplane(cluster, "web-1")
    assert found["mesh"] == "market"
    assert found["spec"]["networking"]["inbound"][0]["tags"]["kuma.io/protocol"] == "http"
    assert found["metadata"]["ownerReferences"][0]["name"] == "web-1"
    listed = market.get("/meshes/market/dataplanes")
    assert [item["name"] for item in listed["items"]] == ["web-1.market"]
    runs(cluster, "web-1", "10.1.0.1", ready=False)

    def state() -> str:
        inbound = dataplane(cluster, "web-1")["spec"]["networking"]["inbound"][0]
        return str(inbound.get("state", "Ready"))

    until("nobody is sent to it", lambda: state() == "NotReady", market.processes)
    follows = "the Dataplane web-1 follows from the Pod of its name and its Services: change these"
    assert follows in cluster.kubectl("delete", "dataplane", "web-1", "-n", "market", check=False).stderr
    edited = dataplane(cluster, "web-1")
    edited["spec"]["networking"]["inbound"][0]["tags"]["kuma.io/service"] = "impostor"
    assert follows in refused(cluster, yaml.safe_dump(edited))
    cluster.kubectl(*_UNASKED, "delete", "dataplane", "web-1", "-n", "market")
    until("it is there again", lambda: services(cluster, "web-1") == ["web_market_svc_80"], market.processes)
    tag = "/spec/networking/inbound/0/tags/kuma.io~1service"
    edit = json.dumps([{"op": "replace", "path": tag, "value": "impostor"}])
    cluster.kubectl(*_UNASKED, "patch", "dataplane", "web-1", "-n", "market", "--type=json", "-p", edit)
    until("it is put right", lambda: services(cluster, "web-1") == ["web_market_svc_80"], market.processes)
    told = cluster.kubectl("get", "events", "-n", "market", "--field-selector=involvedObject.name=web-1").stdout
    assert "CreatedKumaDataplane" in told
    cluster.kubectl("delete", "pod", "web-1", "-n", "market", "--force", "--grace-period=0")
    until("it goes with its Pod", lambda: not dataplane(cluster, "web-1"), market.processes)


def by_hand(name: str, address: str, service: str, **tags: str) -> str:
    """A Dataplane that somebody writes."""
    inbound = {"port": 8080, "serviceAddress": "127.0.0.1", "tags": {"kuma.io/service": service, **tags}}
    return yaml.safe_dump(
        {
            "apiVersion": "kuma.io/v1alpha1", "kind": "Dataplane", "mesh": "market",
            "metadata": {"name": name, "namespace": "market"},
            "spec": {"networking": {"address": address, "inbound": [inbound]}},
        }
    )  # fmt: skip


def test_a_dataplane_that_is_made_by_hand_is_in_nobodys_place(market: Installed) -> None:
    """It is at no address of a Pod or of a Service, and says nothing that follows from these."""
    cluster = market.cluster
    apply(cluster, pod("taken"))
    runs(cluster, "taken", "10.1.0.7", "fd00::7")
    apply(cluster, service("web"))
    whole = cluster.kubectl("get", "service", "web", "-n", "market", "-o", "jsonpath={.spec.clusterIP}").stdout
    for address, owner in (("10.1.0.7", "Pod taken"), (whole, "Service web")):
        said = refused(cluster, by_hand("own", address, "own_market_svc"))
        assert f"spec.networking.address: {address} is the address of {owner} in market" in said
    said = refused(cluster, by_hand("own", "::ffff:10.1.0.7", "own_market_svc"))
    assert "10.1.0.7 is the address of Pod taken in market" in said
    said = refused(cluster, by_hand("own", "FD00:0::7", "own_market_svc"))  # its second address
    assert "fd00::7 is the address of Pod taken in market" in said
    said = refused(cluster, by_hand("own", "10.1.0.8", "own", **{"k8s.kuma.io/address.10.96.0.5:80": "web"}))
    assert "is written by the control plane" in said
    apply(cluster, by_hand("own", "fd00::8", "own_market_svc"))
    apply(cluster, by_hand("own", "10.1.0.8", "own_market_svc"))
    assert services(cluster, "own") == ["own_market_svc"]
    cluster.kubectl("delete", "dataplane", "own", "-n", "market")
    cluster.kubectl("delete", "pod", "taken", "-n", "market", "--force", "--grace-period=0")


def test_a_dataplane_that_was_there_before_its_pod_is_replaced_with_all_that_it_says(market: Installed) -> None:
    """It would outlast the Pod, and its labels would count."""
    cluster = market.cluster
    apply(cluster, by_hand("early", "10.1.0.9", "early_market_svc"))
    before = dataplane(cluster, "early")["metadata"]["uid"]
    apply(cluster, pod("early"))
    runs(cluster, "early", "10.1.0.9")

    def owners() -> list[str]:
        return [owner["name"] for owner in dataplane(cluster, "early").get("metadata", {}).get("ownerReferences", ())]

    until("it is the Pod's", lambda: owners() == ["early"], market.processes)
    assert dataplane(cluster, "early")["metadata"]["uid"] != before
    cluster.kubectl("delete", "pod", "early", "-n", "market", "--force", "--grace-period=0")


def test_nothing_is_listed_and_only_what_differs_is_written(market: Installed) -> None:
    """In steady state there are watches: a change of a Pod that does not matter leads to no write, and to no list."""
    cluster = market.cluster
    for name, address in (("calm", "10.1.0.3"), ("busy", "10.1.0.4")):
        apply(cluster, pod(name))
        runs(cluster, name, address)
    until("both are known", lambda: dataplane(cluster, "calm") and dataplane(cluster, "busy"), market.processes)

    def lists() -> list[str]:
        return re.findall(r'^kuma_kubernetes_api_requests_total\{method="LIST".*$', metrics_of(market), re.M)

    def state(name: str) -> str:
        return str(dataplane(cluster, name)["spec"]["networking"]["inbound"][0].get("state", "Ready"))

    listed, version = lists(), dataplane(cluster, "calm")["metadata"]["resourceVersion"]
    cluster.kubectl("annotate", "pod", "calm", "-n", "market", "of-others=1")
    for ready in (False, True):  # the second round begins when the first is over
        runs(cluster, "busy", "10.1.0.4", ready=ready)
        wanted = "Ready" if ready else "NotReady"
        until(f"it is {wanted}", lambda wanted=wanted: state("busy") == wanted, market.processes)  # type: ignore[misc]
    assert dataplane(cluster, "calm")["metadata"]["resourceVersion"] == version
    assert lists() == listed


def test_what_keeps_a_pod_from_the_mesh_is_told_by_an_event(market: Installed) -> None:
    cluster = market.cluster
    apply(cluster, pod("lost", **{"kuma.io/mesh": "nowhere"}))
    runs(cluster, "lost", "10.1.0.2")

    def told() -> str:
        return cluster.kubectl("get", "events", "-n", "market", "--field-selector=involvedObject.name=lost").stdout

    until("it is told", lambda: 'meshes.kuma.io "nowhere" not found' in told(), market.processes)
    assert "FailedToGenerateKumaDataplane" in told()
