"""What a Pod becomes that is to have a sidecar, and which Pods are left as they are."""

from __future__ import annotations

import copy
import dataclasses
import json
from typing import Any

import pytest

from kuma.base.errors import InvalidResource
from kuma.kubernetes.injection.options import Sidecars
from kuma.kubernetes.injection.pod import inject

NATIVE = Sidecars(
    sidecar_image="registry/kuma-dp:1",
    init_image="registry/kuma-init:1",
    control_plane="https://kuma-control-plane.kuma-system:5678",
    ca_pem="CA",
    audience="kuma-control-plane.kuma-system",
    native=True,
)
OLD = Sidecars(
    sidecar_image="registry/kuma-dp:1",
    init_image="registry/kuma-init:1",
    control_plane="https://kuma-control-plane.kuma-system:5678",
    ca_pem="CA",
    audience="kuma-control-plane.kuma-system",
    native=False,
)
ENABLED = {"metadata": {"name": "shop", "labels": {"kuma.io/sidecar-injection": "enabled"}}}
PLAIN = {"metadata": {"name": "shop"}}


def pod(
    *containers: dict[str, Any],
    annotations: dict[str, str] | None = None,
    labels: dict[str, str] | None = None,
    **spec: Any,
) -> dict[str, Any]:
    app = {"name": "app", "image": "app", "ports": [{"name": "web", "containerPort": 8080}]}
    metadata = {"generateName": "web-", "labels": labels or {}, "annotations": annotations or {}}
    return {"metadata": metadata, "spec": {"containers": list(containers) or [app], **spec}}


def changed(found: dict[str, Any], namespace: Any = ENABLED, chosen: Sidecars = NATIVE) -> dict[str, Any]:
    """The Pod as the API server makes it of the patch."""
    after = copy.deepcopy(found)
    for operation in inject(found, namespace, chosen).patch:
        *parents, last = operation["path"].removeprefix("/").split("/")
        into = after
        for parent in parents:
            into = into[parent]
        into[last] = operation["value"]
    return after


def container(found: dict[str, Any], name: str) -> dict[str, Any]:
    (one,) = (c for part in ("initContainers", "containers") for c in found["spec"].get(part, ()) if c["name"] == name)
    return dict(one)


def environment(found: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one.get("value", "") for one in container(found, "kuma-sidecar")["env"]}


def warned(found: dict[str, Any], chosen: Sidecars = NATIVE) -> str:
    return "\n".join(inject(found, ENABLED, chosen).warnings)


def refused(found: dict[str, Any], namespace: Any = ENABLED) -> str:
    with pytest.raises(InvalidResource) as raised:
        inject(found, namespace, NATIVE)
    return str(raised.value)


@pytest.mark.parametrize(
    ("of_pod", "of_namespace", "wanted"),
    [
        (None, "enabled", True), (None, "true", True), ("disabled", "enabled", False), ("enabled", None, True),
        ("no", "yes", False), (None, None, False), (None, "false", False), ("yes", "disabled", True),
    ],
)  # fmt: skip
def test_the_label_of_the_pod_decides_or_else_that_of_its_namespace(
    of_pod: str | None, of_namespace: str | None, wanted: bool
) -> None:
    labels, others = ({"kuma.io/sidecar-injection": said} if said else {} for said in (of_pod, of_namespace))
    found = inject(pod(labels=labels), {"metadata": {"name": "shop", "labels": others}}, NATIVE)
    assert bool(found.patch) is wanted


@pytest.mark.parametrize("label", ["openshift.io/build.name", "openshift.io/deployer-pod-for.name"])
def test_pods_that_build_and_deploy_have_no_sidecar(label: str) -> None:
    assert not inject(pod(labels={label: "shop-1"}), ENABLED, NATIVE).patch


def test_a_label_with_another_value_is_refused() -> None:
    assert "wrong value" in refused(pod(labels={"kuma.io/sidecar-injection": "enable"}))
    typo = {"metadata": {"name": "shop", "labels": {"kuma.io/sidecar-injection": "ture"}}}
    assert "wrong value" in refused(pod(), typo)


def test_native_sidecars_are_init_containers_before_those_of_the_pod() -> None:
    found = changed(pod(initContainers=[{"name": "migrate", "image": "m"}]))
    assert [c["name"] for c in found["spec"]["initContainers"]] == ["kuma-init", "kuma-sidecar", "migrate"]
    assert [c["name"] for c in found["spec"]["containers"]] == ["app"]
    sidecar = container(found, "kuma-sidecar")
    assert sidecar["restartPolicy"] == "Always"
    assert sidecar["startupProbe"]["httpGet"] == {"path": "/ready", "port": 9902, "scheme": "HTTP"}


def test_on_an_old_cluster_the_sidecar_is_the_first_container_and_redirection_comes_last_or_first() -> None:
    migrate = [{"name": "migrate", "image": "m"}]
    found = changed(pod(initContainers=migrate), chosen=OLD)
    assert [c["name"] for c in found["spec"]["initContainers"]] == ["migrate", "kuma-init"]
    assert [c["name"] for c in found["spec"]["containers"]] == ["kuma-sidecar", "app"]
    assert "restartPolicy" not in container(found, "kuma-sidecar")
    first = changed(pod(annotations={"kuma.io/init-first": "true"}, initContainers=migrate), chosen=OLD)
    assert [c["name"] for c in first["spec"]["initContainers"]] == ["kuma-init", "migrate"]


def test_the_sidecar_has_no_rights_and_a_token_of_its_own() -> None:
    found = changed(pod(securityContext={"runAsUser": 1000, "runAsNonRoot": True}))
    sidecar, redirecting = container(found, "kuma-sidecar"), container(found, "kuma-init")
    assert sidecar["securityContext"] == {
        "runAsUser": 5678, "runAsGroup": 5678, "runAsNonRoot": True, "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"},
    }  # fmt: skip
    assert redirecting["securityContext"]["capabilities"] == {"add": ["NET_ADMIN", "NET_RAW"], "drop": ["ALL"]}
    assert redirecting["securityContext"]["runAsNonRoot"] is False  # whatever the Pod says of its own containers
    (token,) = (v["projected"]["sources"] for v in found["spec"]["volumes"] if v["name"] == "kuma-sidecar-token")
    assert token == [
        {
            "serviceAccountToken": {
                "audience": "kuma-control-plane.kuma-system",
                "expirationSeconds": 3600,
                "path": "token",
            }
        }
    ]
    mounted = {m["name"]: m["mountPath"] for m in sidecar["volumeMounts"]}
    assert environment(found)["KUMA_DATAPLANE_RUNTIME_TOKEN_PATH"] == f"{mounted['kuma-sidecar-token']}/token"


def test_the_sidecar_knows_who_it_is_and_where_its_control_plane_is() -> None:
    found = changed(pod(annotations={"kuma.io/mesh": "payments", "kuma.io/sidecar-drain-time": "5s"}))
    values = environment(found)
    assert values["KUMA_CONTROL_PLANE_URL"] == "https://kuma-control-plane.kuma-system:5678"
    assert values["KUMA_CONTROL_PLANE_CA_CERT"] == "CA"
    assert values["KUMA_DATAPLANE_NAME"] == "$(POD_NAME).$(POD_NAMESPACE)"
    assert (values["KUMA_DATAPLANE_MESH"], values["KUMA_DATAPLANE_DRAIN_TIME"]) == ("payments", "5s")
    names = [one["name"] for one in container(found, "kuma-sidecar")["env"]]
    assert names.index("POD_NAMESPACE") < names.index("KUMA_DATAPLANE_NAME")  # or it would not be filled in


def test_the_mesh_is_that_of_the_pod_or_else_of_its_namespace() -> None:
    namespace = {"metadata": {**ENABLED["metadata"], "annotations": {"kuma.io/mesh": "of-namespace"}}}
    assert changed(pod(), namespace)["metadata"]["annotations"]["kuma.io/mesh"] == "of-namespace"
    named = pod(labels={"kuma.io/mesh": "of-label"}, annotations={"kuma.io/mesh": "of-annotation"})
    assert changed(named, namespace)["metadata"]["annotations"]["kuma.io/mesh"] == "of-label"


def test_the_pod_says_what_was_injected() -> None:
    found = changed(pod(annotations={"own": "kept"}))
    assert found["metadata"]["annotations"] == {
        "own": "kept", "kubectl.kubernetes.io/default-container": "app", "kuma.io/mesh": "default",
        "kuma.io/sidecar-injected": "true", "kuma.io/sidecar-uid": "5678", "kuma.io/envoy-admin-port": "9901",
        "kuma.io/transparent-proxying": "enabled", "kuma.io/transparent-proxying-inbound-port": "15006",
        "kuma.io/transparent-proxying-outbound-port": "15001",
        "kuma.io/transparent-proxying-ip-family-mode": "dualstack",
        "kuma.io/virtual-probes": "enabled", "kuma.io/virtual-probes-port": "9000",
    }  # fmt: skip


def test_traffic_is_redirected_but_for_what_is_excluded() -> None:
    said = {
        "traffic.kuma.io/exclude-inbound-ports": "22, 8081", "traffic.kuma.io/exclude-outbound-ports": "3306",
        "traffic.kuma.io/exclude-outbound-ports-for-uids": "tcp:53:1000; 443:2000-2010",
        "kuma.io/transparent-proxying-ip-family-mode": "ipv4",
    }  # fmt: skip
    redirecting = container(changed(pod(annotations=said)), "kuma-init")
    assert redirecting["command"] == ["kumactl", "install", "transparent-proxy"]
    assert redirecting["args"] == [
        "--kuma-dp-uid=5678", "--redirect-outbound-port=15001", "--redirect-inbound=true",
        "--redirect-inbound-port=15006", "--ip-family-mode=ipv4", "--exclude-inbound-ports=9902,9000,22,8081",
        "--exclude-outbound-ports=3306", "--exclude-outbound-ports-for-uids=tcp:53:1000",
        "--exclude-outbound-ports-for-uids=443:2000-2010", "--verbose",
    ]  # fmt: skip


def test_a_gateway_is_reached_from_outside_and_probed_directly() -> None:
    probe = {"httpGet": {"path": "/health", "port": 8080}}
    found = changed(pod({"name": "app", "readinessProbe": probe}, annotations={"kuma.io/gateway": "enabled"}))
    assert "--redirect-inbound=false" in container(found, "kuma-init")["args"]
    assert container(found, "app")["readinessProbe"] == probe
    assert "only" in refused(pod(annotations={"kuma.io/gateway": "builtin"}))


def test_probes_ask_the_sidecar_which_asks_what_was_asked_before_and_nothing_else() -> None:
    found = changed(
        pod(
            {
                "name": "app",
                "ports": [{"name": "web", "containerPort": 8080}],
                "livenessProbe": {
                    "httpGet": {"path": "/live?full=1", "port": "web", "httpHeaders": [{"name": "A", "value": "b"}]},
                    "periodSeconds": 7, "timeoutSeconds": 3,
                },
                "readinessProbe": {"tcpSocket": {"port": 8080}},
                "startupProbe": {"grpc": {"port": 8081, "service": "a.B"}},
                "lifecycle": {"preStop": {"httpGet": {"path": "bye", "port": 8080, "scheme": "HTTPS"}}},
            },
            {"name": "other", "livenessProbe": {"exec": {"command": ["true"]}}},
        )
    )  # fmt: skip
    app = container(found, "app")
    assert app["livenessProbe"] == {
        "httpGet": {
            "path": "/8080/live?full=1", "port": 9000, "scheme": "HTTP", "httpHeaders": [{"name": "A", "value": "b"}],
        },
        "periodSeconds": 7, "timeoutSeconds": 3,
    }  # fmt: skip
    assert app["readinessProbe"] == {"httpGet": {"path": "/tcp/8080", "port": 9000, "scheme": "HTTP"}}
    assert app["startupProbe"]["httpGet"]["path"] == "/grpc/8081/a.B"
    assert app["lifecycle"]["preStop"]["httpGet"]["path"] == "/https/8080/bye"
    assert container(found, "other")["livenessProbe"] == {"exec": {"command": ["true"]}}
    assert json.loads(environment(found)["KUMA_DATAPLANE_PROBES"]) == {
        "port": 9000,
        "targets": {
            "/8080/live?full=1": {"http": 8080, "path": "/live?full=1", "timeout": 3, "headers": [["A", "b"]]},
            "/tcp/8080": {"tcp": 8080, "timeout": 1},
            "/grpc/8081/a.B": {"grpc": 8081, "service": "a.B", "timeout": 1},
            "/https/8080/bye": {"https": 8080, "path": "/bye", "timeout": 30},
        },
    }


def test_a_probe_of_another_address_or_of_no_port_stays_as_it_is() -> None:
    elsewhere = {"httpGet": {"host": "10.0.0.9", "path": "/", "port": 80}}
    nowhere = {"httpGet": {"path": "/", "port": "absent"}}
    given = pod({"name": "app", "livenessProbe": elsewhere, "readinessProbe": nowhere})
    app = container(changed(given), "app")
    assert (app["livenessProbe"], app["readinessProbe"]) == (elsewhere, nowhere)
    assert "has no port absent" in warned(given)


def test_probes_stay_if_that_is_asked_for() -> None:
    probe = {"httpGet": {"path": "/", "port": 80}}
    found = changed(pod({"name": "app", "livenessProbe": probe}, annotations={"kuma.io/virtual-probes": "disabled"}))
    assert container(found, "app")["livenessProbe"] == probe
    assert "--exclude-inbound-ports=9902" in container(found, "kuma-init")["args"]


def test_ports_of_the_sidecar_make_way_for_those_of_the_workload() -> None:
    ports = [{"containerPort": port} for port in (9000, 9901, 9902)]
    found = changed(pod({"name": "app", "ports": ports}))
    said = found["metadata"]["annotations"]
    assert (said["kuma.io/envoy-admin-port"], said["kuma.io/virtual-probes-port"]) == ("9911", "9010")
    assert environment(found)["KUMA_READINESS_PORT"] == "9912"
    assert "is taken" in refused(
        pod({"name": "a", "ports": ports}, annotations={"kuma.io/virtual-probes-port": "9000"})
    )
    assert "15006" in refused(pod({"name": "app", "ports": [{"containerPort": 15006}]}))


@pytest.mark.parametrize(
    "spec",
    [
        {"hostNetwork": True},
        {"os": {"name": "windows"}},
        {"nodeSelector": {"kubernetes.io/os": "windows"}},
        {"annotations": {"kubernetes.io/config.mirror": "x"}},  # a static Pod
    ],
)
def test_a_pod_that_cannot_have_a_sidecar_gets_no_part_of_one_and_that_is_told(spec: dict[str, Any]) -> None:
    given = pod(**spec)
    after = changed(given)
    assert after["spec"] == given["spec"]
    added = after["metadata"]["annotations"].keys() - given["metadata"]["annotations"].keys()
    assert added == {"kuma.io/sidecar-not-injected"}
    assert "no sidecar is injected into this Pod" in warned(given)


def test_a_second_look_changes_nothing() -> None:
    for chosen in (NATIVE, OLD):
        once = changed(pod(initContainers=[{"name": "migrate"}]), chosen=chosen)
        assert inject(once, ENABLED, chosen) == ([], [])


def test_nothing_else_may_run_as_the_user_of_the_sidecar() -> None:
    sentence = 'containers using same UID as sidecar is unsupported: ["app"]'
    assert sentence in refused(pod({"name": "app", "securityContext": {"runAsUser": 5678}}))
    assert sentence in refused(pod({"name": "app"}, securityContext={"runAsUser": 5678}))
    changed(pod({"name": "app", "securityContext": {"runAsUser": 1}}, securityContext={"runAsUser": 5678}))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("kuma.io/sidecar-drain-tme", "did you mean kuma.io/sidecar-drain-time?"),
        ("traffic.kuma.io/exclude-inbound-port", "did you mean traffic.kuma.io/exclude-inbound-ports?"),
        ("kuma.io/container-patches", "has no effect here"),
        ("kuma.io/sidecar-injection", "make it a label"),
        ("prometheus.metrics.kuma.io/port", "has no effect here"),
        ("kuma.io/nonsense", "is not known, and has no effect"),
    ],
)
def test_annotations_without_effect_are_told(name: str, said: str) -> None:
    assert said in warned(pod(annotations={name: "1"}))


def test_labels_that_are_nearly_ours_are_told_and_other_annotations_are_nobodys_business() -> None:
    assert "did you mean kuma.io/sidecar-injection?" in warned(pod(labels={"kuma.io/sidecar-injecton": "enabled"}))
    assert not warned(pod(annotations={"example.com/kuma.io": "1", "k8s.kuma.io/x": "1"}, labels={"app": "web"}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kuma.io/sidecar-env-vars", "NAME"), ("kuma.io/sidecar-proxy-concurrency", "many"),
        ("kuma.io/sidecar-drain-time", "soon"), ("kuma.io/envoy-log-level", "loud"),
        ("kuma.io/transparent-proxying-ip-family-mode", "ipv7"), ("kuma.io/envoy-admin-port", "99999"),
        ("kuma.io/virtual-probes", "perhaps"), ("kuma.io/gateway", "perhaps"),
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_is_refused_by_its_name(name: str, value: str) -> None:
    assert name in refused(pod(annotations={name: value}))


def test_what_a_pod_says_of_its_sidecar_wins() -> None:
    said = {
        "kuma.io/sidecar-env-vars": "A=b=c;KUMA_DATAPLANE_DRAIN_TIME=1s", "kuma.io/sidecar-proxy-concurrency": "4",
        "kuma.io/envoy-log-level": "debug", "kuma.io/envoy-admin-port": "9911",
    }  # fmt: skip
    found = changed(pod(annotations=said))
    values = environment(found)
    assert (values["A"], values["KUMA_DATAPLANE_DRAIN_TIME"]) == ("b=c", "1s")
    assert values["KUMA_DATAPLANE_RUNTIME_ENVOY_LOG_LEVEL"] == "debug"
    assert container(found, "kuma-sidecar")["args"] == ["run", "--concurrency=4"]
    assert found["metadata"]["annotations"]["kuma.io/envoy-admin-port"] == "9911"


def pre_stop(found: dict[str, Any], name: str = "app") -> Any:
    return container(found, name).get("lifecycle", {}).get("preStop")


def test_workloads_go_on_until_callers_have_been_sent_elsewhere() -> None:
    """Half of the time that the Pod has to end, at the most: the API server refuses a hook that takes all of it."""
    waits = dataclasses.replace(NATIVE, stop_seconds=5)
    assert pre_stop(changed(pod(), chosen=waits)) == {"sleep": {"seconds": 5}}
    assert pre_stop(changed(pod(terminationGracePeriodSeconds=4), chosen=waits)) == {"sleep": {"seconds": 2}}
    assert pre_stop(changed(pod(annotations={"kuma.io/workload-stop-seconds": "9"}), chosen=waits)) == {
        "sleep": {"seconds": 9}
    }
    post_start = {"postStart": {"exec": {"command": ["true"]}}}
    kept = changed(pod({"name": "app", "image": "app", "lifecycle": post_start}), chosen=waits)
    assert container(kept, "app")["lifecycle"] == {**post_start, "preStop": {"sleep": {"seconds": 5}}}
    assert "lifecycle" not in container(kept, "kuma-sidecar")


@pytest.mark.parametrize(
    ("found", "seconds"),
    [
        (pod(annotations={"kuma.io/workload-stop-seconds": "0"}), 5),
        (pod(restartPolicy="Never"), 5),
        (pod(terminationGracePeriodSeconds=1), 5),
        (pod(terminationGracePeriodSeconds=0), 5),
        (pod(), 0),
    ],
    ids=["as it says", "a Job", "no time for it", "no time at all", "a cluster that cannot wait"],
)
def test_workloads_that_cannot_wait_are_told_to_end_as_ever(found: dict[str, Any], seconds: int) -> None:
    assert pre_stop(changed(found, chosen=dataclasses.replace(NATIVE, stop_seconds=seconds))) is None


def test_what_a_workload_does_before_it_ends_is_left_to_it() -> None:
    own = {"preStop": {"exec": {"command": ["drain"]}}}
    found = changed(
        pod({"name": "app", "image": "app", "lifecycle": own}), chosen=dataclasses.replace(NATIVE, stop_seconds=5)
    )
    assert container(found, "app")["lifecycle"] == own
