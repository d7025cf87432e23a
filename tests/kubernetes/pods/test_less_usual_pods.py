"""Pods that have little, or much, of what Pods may have: whether callers are sent to them, where, and as what."""

from __future__ import annotations

from typing import Any

import pytest

from kuma.base.errors import InvalidResource
from kuma.kubernetes.workloads import dataplanes
from tests.kubernetes.pods.test_dataplanes_of_pods import made, pod, service

INJECTED = {"kuma.io/sidecar-injected": "true"}
REDIRECTED = INJECTED | {
    "kuma.io/transparent-proxying": "enabled",
    "kuma.io/transparent-proxying-inbound-port": "15006",
    "kuma.io/transparent-proxying-outbound-port": "15001",
}
SIDECAR = {"name": "kuma-sidecar", "ready": True}


def is_ready(found: dict[str, Any], *services: dict[str, Any]) -> bool:
    (inbound,) = made(found, *services)["inbound"]
    ready: bool = inbound["health"]["ready"]
    return ready


@pytest.mark.parametrize(("status", "ready"), [("True", True), ("False", False), ("Unknown", False)])
def test_a_gate_of_a_pod_has_to_be_met(status: str, ready: bool) -> None:
    gates = {"readinessGates": [{"conditionType": "warm"}]}
    conditions = {"conditions": [{"type": "warm", "status": status}, {"type": "Other", "status": "False"}]}
    assert is_ready(pod(spec=gates, status=conditions), service()) is ready


def test_a_pod_of_which_nothing_is_known_yet_is_not_ready() -> None:
    assert not is_ready(pod(status={"containerStatuses": None, "conditions": None}), service())


def test_the_container_of_a_port_decides_and_the_sidecar_alone_if_none_names_the_port() -> None:
    not_ready = {"containerStatuses": [{"name": "app", "ready": False}, SIDECAR]}
    assert not is_ready(pod(status=not_ready), service(ports=[{"port": 80, "targetPort": "main"}]))
    assert is_ready(pod(status=not_ready), service(ports=[{"port": 80, "targetPort": 9999}]))


def test_all_containers_of_a_pod_without_a_service_have_to_be_ready() -> None:
    assert is_ready(pod())
    assert not is_ready(pod(status={"containerStatuses": [{"name": "app", "ready": False}, SIDECAR]}))


def test_no_label_makes_a_pod_something_that_only_the_control_plane_says() -> None:
    ours = {"kuma.io/instance": "other", "k8s.kuma.io/address.10.96.0.9:80": "victim", "x.kuma.io/y": "z"}
    (inbound,) = made(pod(metadata={"labels": {"app": "redis", **ours}}), service())["inbound"]
    assert ours.keys().isdisjoint(inbound["tags"])


def test_a_workload_of_ipv6_is_reached_at_the_loopback_of_ipv6() -> None:
    (inbound,) = made(pod(status={"podIP": "fd00::7"}), service())["inbound"]
    assert inbound["serviceAddress"] == "::1"


def test_without_the_annotation_nothing_is_said_of_the_administration() -> None:
    assert "admin" not in made(pod(metadata={"annotations": INJECTED}), service())


def test_a_gateway_speaks_no_protocol_of_its_own() -> None:
    networking = made(pod(metadata={"annotations": INJECTED | {"kuma.io/gateway": "enabled"}}), service())
    assert "kuma.io/protocol" not in networking["gateway"]["tags"]


@pytest.mark.parametrize("missing", ["inbound", "outbound"])
def test_redirected_traffic_needs_both_ports(missing: str) -> None:
    annotations = {name: value for name, value in REDIRECTED.items() if f"-{missing}-port" not in name}
    with pytest.raises(InvalidResource, match="the ports of transparent proxying are missing"):
        made(pod(metadata={"annotations": annotations}), service())


def test_families_and_reachable_services_are_taken_from_annotations() -> None:
    more = {
        "kuma.io/transparent-proxying-ip-family-mode": "ipv4",
        "kuma.io/transparent-proxying-reachable-services": "web_shop_svc_80, db_shop_svc_5432",
    }
    networking = made(pod(metadata={"annotations": REDIRECTED | more}), service())
    assert networking["transparentProxying"] == {
        "redirectPortInbound": 15006,
        "redirectPortOutbound": 15001,
        "ipFamilyMode": "IPv4",
        "reachableServices": ["web_shop_svc_80", "db_shop_svc_5432"],
    }


def test_an_owner_that_does_not_control_a_pod_does_not_name_it() -> None:
    owner = {"kind": "Node", "name": "node-1", "controller": False}
    assert dataplanes.owner_name({"metadata": {"name": "alone", "ownerReferences": [owner]}}, {}) == "alone"
