"""What Dataplane a Pod gets: names, tags, states, as the original makes them."""

from __future__ import annotations

from typing import Any

import pytest

from kuma.base.errors import InvalidResource
from kuma.kubernetes.workloads import dataplanes, metadata
from kuma.resources import kinds, parsing


def pod(name: str = "redis-1", **more: Any) -> dict[str, Any]:
    status = {
        "podIP": "10.0.0.1",
        "containerStatuses": [{"name": n, "ready": True} for n in ("app", "kuma-sidecar")],
        "conditions": [],
    }
    containers = [{"name": "app", "ports": [{"name": "main", "containerPort": 6379}, {"containerPort": 9121}]}]
    return {
        "metadata": {
            "name": name, "namespace": "shop", "uid": "u1",
            "labels": {"app": "redis", "kuma.io/service": "impostor", "empty": ""},
            "annotations": {"kuma.io/sidecar-injected": "true", "kuma.io/envoy-admin-port": "9901"},
        } | more.pop("metadata", {}),
        "spec": {"containers": containers} | more.pop("spec", {}),
        "status": status | more.pop("status", {}),
    }  # fmt: skip


def service(name: str = "redis", **spec: Any) -> dict[str, Any]:
    given = {"selector": {"app": "redis"}, "clusterIP": "10.96.0.5", "ports": [{"port": 6379, "targetPort": "main"}]}
    return {
        "metadata": {"name": name, "namespace": "shop", "annotations": spec.pop("annotations", {})},
        "spec": given | spec,
    }


def made(found: dict[str, Any], *services: dict[str, Any], slices: Any = ()) -> dict[str, Any]:
    spec = dataplanes.spec(found, services, slices, "owner", "default")
    parsing.parse_spec(kinds.DATAPLANE, spec, "default")  # our own rules take it
    networking: dict[str, Any] = spec["networking"]
    return networking


def test_an_inbound_has_the_name_of_its_service_and_the_labels_of_its_pod() -> None:
    networking = made(pod(), service())
    assert networking["address"] == "10.0.0.1"
    assert networking["admin"] == {"port": 9901}
    assert networking["inbound"] == [
        {
            "port": 6379,
            "serviceAddress": "127.0.0.1",
            "tags": {
                "app": "redis", "kuma.io/service": "redis_shop_svc_6379", "kuma.io/protocol": "tcp",
                "kuma.io/zone": "default", "k8s.kuma.io/namespace": "shop", "k8s.kuma.io/service-name": "redis",
                "k8s.kuma.io/service-port": "6379", "k8s.kuma.io/address.10.96.0.5:6379": "redis",
            },
            "health": {"ready": True},
        }
    ]  # fmt: skip


def test_several_ports_of_several_services() -> None:
    metrics = service("metrics", ports=[{"port": 80, "targetPort": 9121}, {"port": 53, "protocol": "UDP"}])
    found = {i["port"]: i["tags"]["kuma.io/service"] for i in made(pod(), service(), metrics)["inbound"]}
    assert found == {9121: "metrics_shop_svc_80", 6379: "redis_shop_svc_6379"}


@pytest.mark.parametrize(
    ("port", "annotations", "protocol"),
    [
        ({"appProtocol": "http"}, {}, "http"),
        ({"appProtocol": "mysql"}, {}, "tcp"),
        ({}, {"6379.service.kuma.io/protocol": "GRPC"}, "grpc"),
        ({"appProtocol": "http2"}, {"6379.service.kuma.io/protocol": "grpc"}, "http2"),
    ],
)
def test_the_protocol_is_that_of_the_service(port: dict[str, Any], annotations: dict[str, str], protocol: str) -> None:
    found = service(ports=[{"port": 6379, "targetPort": 6379, **port}], annotations=annotations)
    assert made(pod(), found)["inbound"][0]["tags"]["kuma.io/protocol"] == protocol


@pytest.mark.parametrize(
    "other",
    [
        service(selector={"app": "other"}),
        service(selector=None),
        service(type="ExternalName"),
        service(annotations={"kuma.io/ignore": "true"}),
        service(ports=[{"port": 1, "targetPort": "no-such-port"}]),
        service() | {"metadata": {"name": "redis", "namespace": "elsewhere"}},
    ],
)
def test_a_pod_without_a_service_has_an_identity_all_the_same(other: dict[str, Any]) -> None:
    (inbound,) = made(pod(), other)["inbound"]
    assert (inbound["port"], inbound["tags"]["kuma.io/service"]) == (49151, "owner_shop_svc")
    assert inbound["tags"]["kuma.io/instance"] == "redis-1"


def test_a_service_without_a_selector_leads_where_its_endpoints_say() -> None:
    ends = {
        "metadata": {"name": "x", "labels": {"kubernetes.io/service-name": "redis"}},
        "endpoints": [{"targetRef": {"uid": "u1"}}],
    }
    (inbound,) = made(pod(), service(selector=None), slices=[ends])["inbound"]
    assert inbound["tags"]["kuma.io/service"] == "redis_shop_svc_6379"


def test_headless_services_tell_their_instances_apart() -> None:
    (inbound,) = made(pod(), service(clusterIP="None"))["inbound"]
    assert inbound["tags"]["kuma.io/instance"] == "redis-1"


@pytest.mark.parametrize(
    "more",
    [
        {"status": {"containerStatuses": [{"name": "app", "ready": False}, {"name": "kuma-sidecar", "ready": True}]}},
        {"status": {"containerStatuses": [{"name": "app", "ready": True}, {"name": "kuma-sidecar", "ready": False}]}},
        {"status": {"containerStatuses": []}},
        {"spec": {"readinessGates": [{"conditionType": "warm"}]}},
        {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}},
    ],
)
def test_nobody_is_sent_to_what_is_not_ready(more: dict[str, Any]) -> None:
    (inbound,) = made(pod(**more), service())["inbound"]
    assert (inbound["state"], inbound["health"]) == ("NotReady", {"ready": False})


def test_a_native_sidecar_counts_as_any_other() -> None:
    status = {
        "containerStatuses": [{"name": "app", "ready": True}],
        "initContainerStatuses": [{"name": "kuma-sidecar", "ready": True}],
    }
    (inbound,) = made(pod(status=status), service())["inbound"]
    assert inbound["health"] == {"ready": True}


def test_gateways_have_the_tags_of_their_first_port() -> None:
    annotations = {"kuma.io/sidecar-injected": "true", "kuma.io/gateway": "enabled"}
    networking = made(pod(metadata={"annotations": annotations}), service())
    assert "inbound" not in networking
    assert networking["gateway"]["type"] == "DELEGATED"
    assert networking["gateway"]["tags"]["kuma.io/service"] == "redis_shop_svc_6379"


def test_who_has_ended_or_has_no_sidecar_or_address_has_no_dataplane() -> None:
    assert dataplanes.is_wanted(pod())
    for more in ({"phase": "Succeeded"}, {"phase": "Failed"}, {"podIP": ""}, {"reason": "Evicted"}):
        assert not dataplanes.is_wanted(pod(status=more))
    assert not dataplanes.is_wanted(pod(metadata={"annotations": {}}))
    created = {name: part for name, part in pod().items() if name != "status"}
    assert not dataplanes.is_wanted(created), "nothing is known of it yet"


def test_the_owner_is_the_workload_that_people_know() -> None:
    def owned(name: str, by: str, kind: str) -> dict[str, Any]:
        return {"metadata": {"name": name, "ownerReferences": [{"kind": kind, "name": by, "controller": True}]}}

    sets = {("ReplicaSet", "web-5d"): owned("web-5d", "web", "Deployment")}
    assert dataplanes.owner_name(owned("web-5d-x", "web-5d", "ReplicaSet"), sets) == "web"
    assert dataplanes.owner_name(owned("db-0", "db", "StatefulSet"), sets) == "db"
    assert dataplanes.owner_name({"metadata": {"name": "alone"}}, {}) == "alone"


def test_an_annotation_with_a_slip_is_told() -> None:
    annotations = {"kuma.io/sidecar-injected": "true", "kuma.io/transparent-proxying": "enabeld"}
    with pytest.raises(InvalidResource, match="enabeld"):
        made(pod(metadata={"annotations": annotations}), service())


@pytest.mark.parametrize("text", ["9" * 5_000, "65536", "-1", "0x1", ""])
def test_an_annotation_that_is_no_port_is_told(text: str) -> None:
    with pytest.raises(InvalidResource, match="has to be a port"):
        metadata.port({"kuma.io/envoy-admin-port": text}, "kuma.io/envoy-admin-port")


def test_a_port_is_all_services_that_lead_there_each_called_at_its_own_addresses() -> None:
    """Several Services, one of them headless, and one that has several ports."""
    both = {"clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9", "fd00::9"]}
    second = service("zz", ports=[{"port": port, "targetPort": 6379} for port in (80, 81)], **both)
    found = made(pod(), service(), second, service("headless", clusterIP="None"))["inbound"]
    assert {inbound["port"] for inbound in found} == {6379}
    addresses = {
        inbound["tags"]["kuma.io/service"]: [
            tag.removeprefix("k8s.kuma.io/address.") for tag in inbound["tags"] if "address" in tag
        ]
        for inbound in found
    }
    assert addresses == {
        "headless_shop_svc_6379": [],
        "redis_shop_svc_6379": ["10.96.0.5:6379"],
        "zz_shop_svc_80": ["10.96.0.9:80", "fd00::9:80"],
        "zz_shop_svc_81": ["10.96.0.9:81", "fd00::9:81"],
    }


@pytest.mark.parametrize(
    ("first", "second", "spoken"),
    [
        ("http", None, "http"),
        (None, "grpc", "grpc"),
        ("http", "grpc", "tcp"),
        (None, None, "tcp"),
        ("tcp", "http", "tcp"),
    ],
)
def test_a_port_speaks_one_protocol_whichever_service_names_it(
    first: str | None, second: str | None, spoken: str
) -> None:
    services = [
        service(name, ports=[{"port": 80, "targetPort": 6379, **({"appProtocol": said} if said else {})}])
        for name, said in (("a", first), ("b", second))
    ]
    assert [i["tags"]["kuma.io/protocol"] for i in made(pod(), *services)["inbound"]] == [spoken, spoken]


def test_a_service_that_names_an_unknown_protocol_is_told_of_by_its_name() -> None:
    wrong = service(annotations={"6379.service.kuma.io/protocol": "htpp"})
    with pytest.raises(InvalidResource, match=r'Service redis: .*6379.service.kuma.io/protocol.*"htpp" is not valid'):
        made(pod(), wrong)


def test_a_service_may_lead_to_a_port_of_a_native_sidecar_by_name() -> None:
    native = {"name": "logs", "restartPolicy": "Always", "ports": [{"name": "ship", "containerPort": 5140}]}
    found = pod(spec={"initContainers": [native, {"name": "once", "ports": [{"name": "ship", "containerPort": 1}]}]})
    assert [i["port"] for i in made(found, service(ports=[{"port": 80, "targetPort": "ship"}]))["inbound"]] == [5140]


def test_a_pod_whose_traffic_is_redirected_is_called_where_it_listens() -> None:
    redirected = {
        "kuma.io/transparent-proxying": "enabled",
        "kuma.io/transparent-proxying-inbound-port": "15006",
        "kuma.io/transparent-proxying-outbound-port": "15001",
    }
    annotated = {"annotations": {"kuma.io/sidecar-injected": "true", **redirected}}
    networking = made(pod(metadata=annotated), service())
    assert [(i["port"], i.get("serviceAddress")) for i in networking["inbound"]] == [(6379, None)]
    assert networking["transparentProxying"] == {"redirectPortInbound": 15006, "redirectPortOutbound": 15001}


@pytest.mark.parametrize(
    ("more", "also"),
    [
        ({}, ["fd00::7"]),
        ({"kuma.io/transparent-proxying-ip-family-mode": "ipv4"}, []),
        ({"kuma.io/transparent-proxying": "disabled"}, []),
        ({"kuma.io/gateway": "enabled"}, []),
    ],
    ids=["dual-stack", "only IPv4 is redirected", "nothing is redirected", "a gateway"],
)
def test_a_dual_stack_pod_says_where_it_is_called_too(more: dict[str, str], also: list[str]) -> None:
    redirected = {
        "kuma.io/transparent-proxying": "enabled",
        "kuma.io/transparent-proxying-inbound-port": "15006",
        "kuma.io/transparent-proxying-outbound-port": "15001",
    }
    annotated = {"annotations": {"kuma.io/sidecar-injected": "true", **redirected, **more}}
    address = pod()["status"]["podIP"]
    status = {"podIPs": [{"ip": address}, {"ip": "fd00::7"}]}
    networking = made(pod(metadata=annotated, status=status), service())
    tags = networking["inbound"][0]["tags"] if "inbound" in networking else networking["gateway"]["tags"]
    found = [name.removeprefix("k8s.kuma.io/also-at.") for name in tags if "also-at" in name]
    assert (networking["address"], found) == (address, also)
