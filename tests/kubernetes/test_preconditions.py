"""What a cluster lacks for this version of the control plane is told: in the log, by metrics and by events."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
import structlog
import yaml
from prometheus_client import CollectorRegistry

import kuma
from kuma.kubernetes import leadership
from kuma.kubernetes.api import credentials
from kuma.kubernetes.api.client import ApiClient
from kuma.kubernetes.install import access, fitness, manifests
from kuma.kubernetes.install.options import NAME, Options
from kuma.kubernetes.leadership import Lease
from kuma.kubernetes.metrics import Metrics
from kuma.kubernetes.preconditions import Preconditions
from kuma.pki.validity import Validity
from tests.fakes.clock import ManualClock
from tests.kubernetes.conftest import Place
from tools.kubernetes.cluster import Cluster

YOUNG = Validity(datetime.max.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))
pytestmark = pytest.mark.timeout(3600)  # the first test waits until the API server is built


def rule(verbs: str, resources: str, group: str = "", names: str = "") -> dict[str, list[str]]:
    found = {"verbs": verbs.split(), "resources": resources.split(), "apiGroups": [group]}
    return found | ({"resourceNames": names.split()} if names else {})


@pytest.mark.parametrize(
    ("granted", "missing"),
    [
        ([rule("get list watch", "pods")], ["create pods"]),
        ([rule("get list", "pods"), rule("watch create", "pods services")], []),
        ([rule("*", "*", "*")], []),
        ([rule("get list watch create", "pods", "apps")], ["get pods", "list pods", "watch pods", "create pods"]),
        ([rule("get list watch", "pods"), rule("create", "pods", names="one")], ["create pods"]),
        ([], ["get pods", "list pods", "watch pods", "create pods"]),
    ],
)
def test_each_verb_that_is_not_granted_is_named(granted: list[fitness.Rule], missing: list[str]) -> None:
    assert fitness.missing_access([rule("get list watch create", "pods")], granted) == missing


def test_access_to_single_objects_is_named_with_them() -> None:
    needed = [rule("patch", "things", "x.io", "a b")]
    assert fitness.missing_access(needed, [rule("patch", "things", "x.io", "b")]) == ["patch things.x.io/a"]


def test_of_all_that_is_installed_no_verb_is_missed_in_silence() -> None:
    """Each of each rule, taken away alone, is named with its resources."""
    roles = [one for one in access.manifests(Options(version="test")) if one.get("rules")]
    looked_at = 0
    for role in roles:
        for index, one in enumerate(role["rules"]):
            for verb in one["verbs"]:
                less = {**one, "verbs": [other for other in one["verbs"] if other != verb]}
                granted = [*role["rules"][:index], less, *role["rules"][index + 1 :]]
                missing = fitness.missing_access(role["rules"], granted)
                assert {text.split()[0] for text in missing} == {verb}, (one, verb, missing)
                assert all(any(resource in text for text in missing) for resource in one["resources"])
                looked_at += 1
    assert looked_at > 20


def account(place: Place, left_out: str) -> Path:
    """Installs the ServiceAccount with its roles but for one resource; returns its kubeconfig."""
    chosen = Options(namespace=place.forms.system, version="test")
    objects = access.manifests(chosen)
    for one in objects:
        if one["kind"].startswith("ClusterRole"):
            one["metadata"]["name"] = f"{NAME}-{place.forms.system}"
        if one["kind"] == "ClusterRoleBinding":
            one["roleRef"]["name"] = f"{NAME}-{place.forms.system}"
        one.get("rules", [])[:] = [rule for rule in one.get("rules", []) if left_out not in rule["resources"]]
    place.cluster.kubectl("apply", "-f", "-", text=yaml.safe_dump_all(objects))
    token = place.cluster.kubectl("create", "token", NAME, "-n", place.forms.system).stdout.strip()
    return place.cluster.kubeconfig_of(f"account-{place.forms.system}", {"token": token})


def grant_everything(place: Place) -> None:
    account(place, left_out="nothing")


def pod(place: Place) -> None:
    metadata = {"name": "cp-1", "namespace": place.forms.system}
    spec = {"containers": [{"name": "control-plane", "image": "kuma-cp"}]}
    text = json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    place.cluster.kubectl("create", "--validate=false", "-f", "-", text=text)


def apply_definitions(cluster: Cluster, **annotations: str) -> None:
    """As this version prints them; with other annotations of the first one, as if another version had."""
    found = manifests.crds(Options(version="test"))
    found[0]["metadata"]["annotations"] |= {name.replace("_", "/"): value for name, value in annotations.items()}
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", text=yaml.safe_dump_all(found))


async def test_access_and_definitions_that_are_missing_are_told_until_they_are_there(place: Place) -> None:
    cluster, registry = place.cluster, CollectorRegistry()
    pod(place)
    config = account(place, left_out="endpointslices")
    older = {"kuma.io_version": "0.0.1", "kuma.io_definition": "0" * 16}
    apply_definitions(cluster, **older)
    chosen = Options(namespace=place.forms.system, version="test")

    def metric(name: str) -> float | None:
        return registry.get_sample_value(f"kubernetes_{name}")

    async with ApiClient(credentials.find(config), Metrics(registry)) as client:
        looking = Preconditions(client, chosen, ManualClock(), "cp-1", lambda: YOUNG)
        with structlog.testing.capture_logs() as logs:
            await looking.look()
        name = manifests.crds(chosen)[0]["metadata"]["name"]
        assert "watch endpointslices.discovery.k8s.io" in looking.access
        assert list(looking.definitions) == [f"{name} is of version 0.0.1, not {kuma.__version__}"]
        assert metric("access_missing") == len(looking.access)
        assert metric("definitions_differing") == 1
        errors = [entry for entry in logs if entry["log_level"] == "error"]
        assert ["watch endpointslices.discovery.k8s.io" in entry["missing"] for entry in errors] == [True, False]
        assert "kumactl install crds" in errors[1]["remedy"]
        told = cluster.kubectl("get", "events", "-n", place.forms.system).stdout
        assert "AccessMissing" in told
        assert "DefinitionsDiffer" in told
        grant_everything(place)
        apply_definitions(cluster)
        with structlog.testing.capture_logs() as logs:
            await looking.look()
        assert not looking.access
        assert not looking.definitions
        assert metric("access_missing") == metric("definitions_differing") == 0
        assert [entry["event"] for entry in logs] == ["the cluster is as the control plane needs it, now"]


async def test_a_leader_of_another_version_is_told_of_until_it_is_of_this_one(place: Place) -> None:
    """Also one that is too old to say which it is, and leaves standing what another one has written there."""
    cluster, registry, chosen = (
        place.cluster,
        CollectorRegistry(),
        Options(namespace=place.forms.system, version="test"),
    )
    pod(place)
    lease = leadership.path(place.forms.system)

    def differs() -> float | None:
        return registry.get_sample_value("kubernetes_leader_of_another_version")

    async with ApiClient(credentials.find(cluster.admin), Metrics(registry)) as client:
        looking = Preconditions(client, chosen, ManualClock(), "cp-1", lambda: YOUNG)

        def told_of() -> str | None:
            return looking.leader

        await looking.look()
        assert told_of() is None  # nobody leads: it is looked at again soon
        await Lease(client, place.forms.system, "new", ManualClock()).acquire()
        await looking.look()
        assert (told_of(), differs()) == ("", 0)
        found = await client.get(lease)
        await client.replace(lease, {**found, "spec": {**found["spec"], "holderIdentity": "old"}})
        with structlog.testing.capture_logs() as logs:
            await looking.look()
            await looking.look()
        (told,) = [one for one in logs if one["event"] == "the control plane that leads is of another version"]
        assert (told["leader"], told["version"], told["own_version"]) == ("old", "unknown", kuma.__version__)
        assert (told_of(), differs()) == ("old (version unknown)", 1)
        events = cluster.kubectl("get", "events", "-n", place.forms.system).stdout
        assert f"is of another version: old (version unknown), and this one is {kuma.__version__}" in events
        await client.replace(lease, {**await client.get(lease), "spec": {**found["spec"], "holderIdentity": "new"}})
        with structlog.testing.capture_logs() as logs:
            await looking.look()
        assert "the control plane that leads is of this version, now" in [one["event"] for one in logs]
        assert (told_of(), differs()) == ("", 0)
