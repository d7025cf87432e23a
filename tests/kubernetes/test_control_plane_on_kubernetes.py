"""What a user of kubectl sees: Meshes, their Secrets and permissions, judged as by the REST API."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from demo.processes import BIN, free_ports, is_free, until
from kuma.base.errors import InvalidResource
from kuma.resources import codec
from tests.fakes import cas
from tests.kubernetes.kubectl import apply, builtin, exists, mesh, metrics_of, refused, secret, shown
from tests.kubernetes.webhooks.test_same_words import FILES, for_kubectl
from tools.kubernetes.cluster import Cluster
from tools.kubernetes.installed import NAMESPACE, Installed, installed, kumactl

pytestmark = pytest.mark.timeout(3600)  # the first test waits until the API server is built


@pytest.fixture(scope="module")
def kuma(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    with installed(cluster, tmp_path_factory.mktemp("control-plane")) as found:
        yield found


def test_a_mesh_gets_its_root_and_tells_its_state(kuma: Installed) -> None:
    cluster = kuma.cluster
    apply(cluster, mesh("reference", enabledBackend="ca-1", backends=[builtin()]))
    names = ["reference.ca-builtin-cert-ca-1", "reference.ca-builtin-key-ca-1"]
    until("there is a root", lambda: all(exists(cluster, "secret", name) for name in names), kuma.processes)
    until(
        "columns tell the state",
        lambda: "STRICT   builtin/ca-1   complete" in cluster.kubectl("get", "meshes", "reference").stdout,
        kuma.processes,
    )
    listed = cluster.kubectl("get", "secrets", "-n", NAMESPACE, "--field-selector=type=system.kuma.io/secret").stdout
    assert all(name in listed for name in names)
    owner = shown(cluster, "secret", names[0])["metadata"]["ownerReferences"][0]
    assert (owner["kind"], owner["name"]) == ("Mesh", "reference")


PAGE = Path(__file__).parents[2] / "docs" / "kubernetes.md"


def by_the_commands_of_the_page(kuma: Installed) -> str:
    """What they print that set kumactl up and read. Only a kubelet forwards ports: the address is another one."""
    section = PAGE.read_text().partition("## Reading, and writing\n")[2]
    forwarding, _, commands = section.partition("```sh\n")[2].partition("```")[0].partition("\n")
    assert forwarding.startswith("kubectl port-forward -n kuma-system svc/kuma-control-plane 5681:5681")
    path = f"{BIN}:{kuma.cluster.programs}:{os.environ['PATH']}"
    home = {**os.environ, "PATH": path, "HOME": str(kuma.directory), "KUBECONFIG": str(kuma.cluster.admin)}
    text = commands.replace("http://localhost:5681", kuma.url)
    done = subprocess.run(["bash", "-eu"], input=text, env=home, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return " ".join(done.stdout.split())


def test_the_mesh_of_the_reference_is_applied_as_it_is_printed(kuma: Installed) -> None:
    """With an RSA root; kumactl lists the same Secrets as kubectl."""
    conf = {"caCert": {"RSAbits": 2048, "expiration": "10y"}}
    backend = builtin(dpCert={"rotation": {"expiration": "1d"}}, conf=conf)
    apply(kuma.cluster, mesh("default", enabledBackend="ca-1", backends=[backend]))
    until("there is a root", lambda: exists(kuma.cluster, "secret", "default.ca-builtin-key-ca-1"), kuma.processes)
    until(
        "the mesh is known",
        lambda: "complete" in kuma.cluster.kubectl("get", "meshes", "default").stdout,
        kuma.processes,
    )
    found = by_the_commands_of_the_page(kuma)
    for said in ("default builtin/ca-1 STRICT", "CERT REGENERATED AGO", "LEADER", "default.ca-builtin-cert-ca-1"):
        assert said in found
    config = ("--config-file", kuma.directory / ".kumactl" / "config")
    refusal = kumactl(*config, "apply", "-f", "-", text="{type: Mesh, name: other}", check=False)
    assert "you should always be using 'kubectl apply' instead" in refusal.stderr
    assert not exists(kuma.cluster, "mesh", "other")


@pytest.mark.parametrize(
    ("mtls", "said"),
    [
        ({"enabledBackends": "ca-1"}, "spec.mtls.enabledBackends: unknown field; did you mean enabledBackend?"),
        ({"enabledBackend": "ca-1"}, "spec.mtls.enabledBackend: has to be set to one of the backends"),
        ({"backends": [builtin(), builtin()]}, 'spec.mtls.backends[1].name: "ca-1" name is already used'),
        (
            {"backends": [{"name": "a", "type": "vault2"}]},
            "spec.mtls.backends[0].type: could not find installed plugin",
        ),
        ({"backends": [builtin(mode="LAX")]}, "spec.mtls.backends[0].mode: has to be"),
        (
            {
                "backends": [
                    {
                        "name": "p",
                        "type": "provided",
                        "conf": {"cert": {"secret": "absent"}, "key": {"secret": "absent"}},
                    }
                ]
            },
            "could not load data",
        ),
    ],
)
def test_what_breaks_a_rule_is_refused_with_the_words_of_the_rest_api(
    kuma: Installed, mtls: dict[str, Any], said: str
) -> None:
    text = refused(kuma.cluster, mesh("wrong", **mtls))
    assert 'The Mesh "wrong" is invalid: ' in text
    assert said in text
    assert not exists(kuma.cluster, "mesh", "wrong")


def test_kubectl_tells_of_every_rule_what_kumactl_does(kuma: Installed) -> None:
    """Of all files that a rule refuses by what is in them, applied at once."""
    documents: list[dict[str, Any]] = []
    expected: list[list[tuple[str, str]]] = []
    for identity, document in FILES.items():
        if identity == "null":
            continue  # to the API server the same as a field that is left out
        try:
            codec.parse(document)
        except InvalidResource as error:
            documents.append(for_kubectl({**document, "name": f"rule-{len(documents)}"}))
            expected.append([(found.field, found.reason) for found in error.violations])
    text = refused(kuma.cluster, yaml.safe_dump_all(documents, sort_keys=False))
    answers = text.split("Error from server (Invalid): ")[1:]
    assert len(answers) == len(documents) > 20
    for answer, violations in zip(answers, expected, strict=True):
        for field, reason in violations:
            assert f"{field if field.startswith('spec') else f'spec.{field}'}: {reason}" in answer
    assert "rule-" not in kuma.cluster.kubectl("get", "meshes,trafficpermissions,meshtrafficpermissions", "-A").stdout


def test_warnings_are_told_by_kubectl(kuma: Installed) -> None:
    said = apply(kuma.cluster, mesh("warned", enabledBackend="ca-1", backends=[builtin()]))
    assert 'Warning: mutual TLS is on and mesh "warned" has no permission' in said


def test_provided_authorities_come_from_secrets_of_both_types(kuma: Installed, tmp_path: Path) -> None:
    """Two Secrets as the reference says, and one as cert-manager writes it; neither can be deleted while it is used."""
    cluster = kuma.cluster
    made = cas.root(tmp_path, "own")
    apply(cluster, secret("own-cert", made.cert.encode(), "own"))
    apply(cluster, secret("own-key", made.key.encode(), "own"))
    encoded = {
        name: base64.b64encode(text.encode()).decode() for name, text in (("tls.crt", made.cert), ("tls.key", made.key))
    }
    issued = yaml.safe_load(secret("issued", b"", "own")) | {"type": "kubernetes.io/tls", "data": encoded}
    apply(cluster, yaml.safe_dump(issued))
    separate = {"cert": {"secret": "own-cert"}, "key": {"secret": "own-key"}}
    together = {"cert": {"secret": "issued"}, "key": {"secret": "issued"}}
    backends = [{"name": name, "type": "provided", "conf": conf} for name, conf in (("a", separate), ("b", together))]
    apply(cluster, mesh("own", enabledBackend="a", backends=backends))
    apply(cluster, mesh("own", enabledBackend="b", backends=backends))
    for name in ("own-cert", "issued"):
        kept = cluster.kubectl("delete", "secret", name, "-n", NAMESPACE, check=False)
        assert f'The secret "{name}" that you are trying to remove is currently in use in Mesh "own"' in kept.stderr
    assert "would break mTLS backend" in refused(cluster, secret("own-cert", b"nonsense", "own"))
    unlabelled = {**issued, "metadata": {**issued["metadata"], "labels": {}}}
    assert (
        "cannot change mesh of the Secret"
        in cluster.kubectl("replace", "-f", "-", text=yaml.safe_dump(unlabelled), check=False).stderr
    )


def tls_secret(name: str, made: cas.Ca, mesh: str) -> str:
    """A Secret as cert-manager writes it."""
    pair = (("tls.crt", made.cert), ("tls.key", made.key))
    encoded = {field: base64.b64encode(text.encode()).decode() for field, text in pair}
    return yaml.safe_dump(yaml.safe_load(secret(name, b"", mesh)) | {"type": "kubernetes.io/tls", "data": encoded})


def test_a_renewal_by_cert_manager_changes_the_authority_in_stages(kuma: Installed, tmp_path: Path) -> None:
    """Another certificate with another key: a new epoch, by which the old root was retired. Half of it is refused."""
    cluster = kuma.cluster
    before, after = cas.root(tmp_path, "before"), cas.root(tmp_path, "after")
    conf = {"cert": {"secret": "of-cert-manager"}, "key": {"secret": "of-cert-manager"}}
    apply(cluster, tls_secret("of-cert-manager", before, "renewed"))
    backend = {"name": "ca", "type": "provided", "conf": conf}
    apply(cluster, mesh("renewed", enabledBackend="ca", backends=[backend]))

    def position() -> dict[str, Any]:
        if not exists(cluster, "meshtransition", "renewed"):
            return {}
        found: dict[str, Any] = shown(cluster, "meshtransition", "renewed").get("status", {}).get("position", {})
        return found

    def trusted(made: cas.Ca) -> bool:
        return [root.strip() for root in position().get("roots", ())] == [made.cert.strip()]

    until("the mesh trusts its authority", lambda: trusted(before), kuma.processes)
    old = position()
    half = tls_secret("of-cert-manager", dataclasses.replace(after, key=before.key), "renewed")
    assert "would break mTLS backend" in refused(cluster, half)
    apply(cluster, tls_secret("of-cert-manager", after, "renewed"))
    until("the mesh trusts the new one alone", lambda: trusted(after), kuma.processes)
    new = position()
    assert new["authority"] != old["authority"]
    assert new["epoch"] == old.get("epoch", 0) + 1
    assert new["level"] == old["level"]


def test_a_root_that_is_there_already_is_adopted(kuma: Installed, tmp_path: Path) -> None:
    """As an earlier control plane has left it."""
    made = cas.root(tmp_path, "adopted")
    for part, text in (("cert", made.cert), ("key", made.key)):
        apply(kuma.cluster, secret(f"adopted.ca-builtin-{part}-ca-1", text.encode(), "adopted"))
    apply(kuma.cluster, mesh("adopted", enabledBackend="ca-1", backends=[builtin()]))

    def state() -> bool:
        return bool(shown(kuma.cluster, "mesh", "adopted").get("status", {}).get("state") == "complete")

    until("the mesh has its authority", state, kuma.processes)
    found = shown(kuma.cluster, "secret", "adopted.ca-builtin-cert-ca-1")["data"]["value"]
    assert base64.b64decode(found).decode() == made.cert
    roots = shown(kuma.cluster, "meshtransition", "adopted")["status"]["position"]["roots"]
    assert [root.strip() for root in roots] == [made.cert.strip()]


PERMISSION = """
apiVersion: kuma.io/v1alpha1
kind: MeshTrafficPermission
metadata: {name: allow-all, namespace: NAMESPACE}
spec: {targetRef: {kind: Mesh}, from: [{targetRef: {kind: Mesh}, default: {action: ACTION}}]}
"""
OLD_PERMISSION = """
apiVersion: kuma.io/v1alpha1
kind: TrafficPermission
mesh: MESH
metadata: {name: NAME}
spec: {sources: [{match: {kuma.io/service: '*'}}], destinations: [{match: {kuma.io/service: '*'}}]}
"""


def test_policies_say_their_mesh_and_go_with_it(kuma: Installed) -> None:
    cluster = kuma.cluster
    apply(cluster, mesh("default"))
    apply(cluster, PERMISSION.replace("NAMESPACE", NAMESPACE).replace("ACTION", "Allow"))
    found = shown(cluster, "meshtrafficpermission", "allow-all")
    assert found["metadata"]["labels"]["kuma.io/mesh"] == "default"
    apply(cluster, mesh("short"))
    apply(cluster, OLD_PERMISSION.replace("MESH", "short").replace("NAME", "of-short"))
    listed = kuma.get("/meshes/default/meshtrafficpermissions")
    assert [item["name"] for item in listed["items"]] == [f"allow-all.{NAMESPACE}"]
    cluster.kubectl("delete", "mesh", "short")
    until("the permission has gone", lambda: not exists(cluster, "trafficpermission", "of-short"), kuma.processes)


def test_policies_out_of_place_are_refused(kuma: Installed) -> None:
    apply(kuma.cluster, mesh("default"))
    wrong = PERMISSION.replace("ACTION", "Allow").replace("NAMESPACE", "default")
    assert f"policy can only be created in the system namespace:{NAMESPACE}" in refused(kuma.cluster, wrong)
    assert "spec.from[0].default.action" in refused(
        kuma.cluster, PERMISSION.replace("NAMESPACE", NAMESPACE).replace("ACTION", "Permit")
    )
    nowhere = OLD_PERMISSION.replace("MESH", "nowhere").replace("NAME", "lost")
    assert 'meshes.kuma.io "nowhere" not found' in refused(kuma.cluster, nowhere)
    assert "mesh: cannot be empty" in refused(kuma.cluster, nowhere.replace("mesh: nowhere\n", ""))


def test_what_the_control_plane_writes_nobody_else_does(kuma: Installed) -> None:
    apply(kuma.cluster, mesh("default"))
    text = "apiVersion: kuma.io/v1alpha1\nkind: MeshTransition\nmetadata: {name: forged}\nstatus: {}\n"
    assert "MeshTransition is written by the control plane only" in refused(kuma.cluster, text)


@pytest.mark.parametrize("type_", ["system.kuma.io/transaction", "system.kuma.io/transaction-key"])
def test_notes_of_transactions_are_written_by_control_planes_only(kuma: Installed, type_: str) -> None:
    """They would be carried out past all rules. Neither is one changed or deleted by somebody else."""
    cluster = kuma.cluster
    forged = yaml.safe_dump(yaml.safe_load(secret("forged", b"x")) | {"type": type_})
    said = f"Secrets of the type {type_} are written by the control plane only"
    assert said in refused(cluster, forged)
    apply(cluster, mesh("noted", enabledBackend="ca-1", backends=[builtin()]))
    until("a root has been made", lambda: exists(cluster, "secret", "noted.ca-builtin-key-ca-1"), kuma.processes)
    key = ("secret", "kuma-transaction-key", "-n", NAMESPACE)
    assert "are written by the control plane only" in cluster.kubectl("delete", *key, check=False).stderr
    assert "are written by the control plane only" in cluster.kubectl("label", *key, "a=b", check=False).stderr


def test_webhooks_that_have_lost_the_ca_are_given_it_again(kuma: Installed) -> None:
    """As when another tool has applied them anew: nobody can write meanwhile."""
    cluster, name = kuma.cluster, "kuma-validating-webhook-configuration"

    def bundle() -> str:
        path = "jsonpath={.webhooks[0].clientConfig.caBundle}"
        return cluster.kubectl("get", "validatingwebhookconfiguration", name, "-o", path).stdout

    before = bundle()
    other = cluster.kubectl("get", "configmap", "kube-root-ca.crt", "-n", "default", "-o", r"jsonpath={.data.ca\.crt}")
    patch = {"op": "replace", "path": "/webhooks/0/clientConfig/caBundle"}
    wrong = json.dumps([{**patch, "value": base64.b64encode(other.stdout.encode()).decode()}])
    cluster.kubectl("patch", "validatingwebhookconfiguration", name, "--type=json", "-p", wrong)
    until("they have it again", lambda: bundle() == before, kuma.processes)
    until("changes are judged", kuma.judges, kuma.processes)


def test_what_is_asked_of_the_api_is_counted(kuma: Installed) -> None:
    metrics = metrics_of(kuma)
    assert 'kuma_kubernetes_api_requests_total{method="WATCH",status="200"}' in metrics
    assert "kuma_control_plane_leads 1.0" in metrics
    served = {name for name in re.findall(r"^# TYPE (kuma_kubernetes_\w+)", metrics, re.M) if "_created" not in name}
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    assert served == set(re.findall(r"kuma_kubernetes_\w+", page))


def test_secrets_of_others_are_their_own_business(kuma: Installed) -> None:
    opaque = yaml.safe_load(secret("of-somebody", b"x"))
    apply(kuma.cluster, yaml.safe_dump({**opaque, "type": "Opaque"}))
    kuma.cluster.kubectl("delete", "secret", "of-somebody", "-n", NAMESPACE)
    assert "data.value: cannot be empty." in refused(kuma.cluster, secret("empty", b""))


def test_without_a_control_plane_nothing_is_weakened_and_what_was_missed_is_made_up_for(kuma: Installed) -> None:
    cluster = kuma.cluster
    apply(cluster, mesh("guarded", enabledBackend="ca-1", backends=[builtin()]))
    until("there is a root", lambda: exists(cluster, "secret", "guarded.ca-builtin-key-ca-1"), kuma.processes)
    kuma.kill()
    assert "failed calling webhook" in refused(cluster, mesh("guarded"))
    removal = cluster.kubectl("delete", "secret", "guarded.ca-builtin-key-ca-1", "-n", NAMESPACE, check=False)
    assert "failed calling webhook" in removal.stderr
    opaque = yaml.safe_load(secret("of-somebody-else", b"x"))
    apply(cluster, yaml.safe_dump({**opaque, "type": "Opaque"}))  # what is none of ours goes on
    kuma.run()
    apply(cluster, mesh("guarded", enabledBackend="ca-2", backends=[builtin(), builtin("ca-2")]))
    until("there is a second root", lambda: exists(cluster, "secret", "guarded.ca-builtin-key-ca-2"), kuma.processes)


def test_everything_that_is_installed_is_valid(kuma: Installed) -> None:
    """Strictly, by the API server itself: an unknown field is an error."""
    text = kumactl("install", "control-plane", "--env-var", "KUMA_GENERAL_LOG_LEVEL=debug").stdout
    kuma.cluster.kubectl(
        "apply", "--dry-run=server", "--server-side", "--force-conflicts", "--validate=strict", "-f", "-", text=text
    )


def test_another_control_plane_takes_over_when_the_leader_is_killed(kuma: Installed) -> None:
    """The one that waits judges changes meanwhile, and serves everything once it leads."""
    cluster = kuma.cluster
    first = kuma.ports
    kuma.ports = dict(zip(first, free_ports(len(first)), strict=True))
    waiting = kuma.start("waiting")

    def holder() -> str:
        lease = cluster.kubectl("get", "lease", "cp-leader-lease", "-n", NAMESPACE, "-o", "json").stdout
        return str(json.loads(lease)["spec"]["holderIdentity"])

    before = holder()
    until("it is there to judge", lambda: not is_free(kuma.ports["webhooks"]), kuma.processes)
    assert kuma.get("/") is None
    kuma.kill()
    until("it leads", lambda: holder() not in ("", before), kuma.processes)
    until("it serves", lambda: kuma.get("/") is not None, kuma.processes)
    kuma.processes.stop(waiting)
    assert holder() == ""  # an orderly end lets another one lead at once
    kuma.ports = first
    kuma.run()


def test_a_control_plane_that_cannot_renew_its_lease_says_that_it_does_not_lead(kuma: Installed) -> None:
    """Its RBAC lacks a verb. It goes on answering, and leads again once it may."""
    cluster = kuma.cluster
    token = kuma.cluster.kubectl(
        "get", "secret", "admin-user-token", "-n", NAMESPACE, "--template={{.data.value | base64decode}}"
    ).stdout

    def leads(expected: bool) -> bool:
        found = kuma.get("/control-planes", token)
        return found is not None and [one["leader"] for one in found["items"]] == [expected]

    until("it leads", lambda: leads(True), kuma.processes)
    granted = shown(cluster, "role", "kuma-control-plane")
    rules = [{**rule, "verbs": ["get"]} if rule["resources"] == ["leases"] else rule for rule in granted["rules"]]
    assert rules != granted["rules"]
    path = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}/roles/kuma-control-plane"
    try:
        cluster.ask("PATCH", path, {"rules": rules})
        until("it says so", lambda: leads(False), kuma.processes)
        assert "control_plane_leads 0.0" in metrics_of(kuma)
        until("the log says why", lambda: "and changes nothing" in kuma.log(), kuma.processes)
    finally:
        cluster.ask("PATCH", path, {"rules": granted["rules"]})
    until("it leads again", lambda: leads(True), kuma.processes)


def test_what_is_stored_outlasts_the_control_plane_that_is_uninstalled(kuma: Installed) -> None:
    """Another one that is installed later goes on with the same root; with `--with-data` all of it would go."""
    cluster, name = kuma.cluster, "outlasting.ca-builtin-key-ca-1"
    apply(cluster, mesh("outlasting", enabledBackend="ca-1", backends=[builtin()]))
    until("there is a root", lambda: exists(cluster, "secret", name), kuma.processes)
    before = shown(cluster, "secret", name)["data"]
    uninstalled = kumactl("uninstall", "control-plane").stdout
    cluster.kubectl("delete", "--ignore-not-found", "-f", "-", text=uninstalled)
    for kind in ("deployments", "services", "serviceaccounts", "roles", "networkpolicies", "poddisruptionbudgets"):
        assert "kuma" not in cluster.kubectl("get", kind, "-n", NAMESPACE).stdout
    own = {described["metadata"]["name"] for described in yaml.safe_load_all(uninstalled) if described}
    for kind in ("mutatingwebhookconfigurations", "validatingwebhookconfigurations", "clusterroles"):
        left = {line.split("/")[1] for line in cluster.kubectl("get", kind, "-o", "name").stdout.split()}
        assert not own & left, "others' installations in this cluster have names of their own"
    assert exists(cluster, "mesh", "outlasting")
    assert shown(cluster, "secret", name)["data"] == before
    everything = kumactl("uninstall", "control-plane", "--with-data").stdout
    gone = cluster.kubectl("delete", "--ignore-not-found", "--dry-run=server", "-f", "-", text=everything).stdout
    assert f'namespace "{NAMESPACE}"' in gone
    assert '"meshes.kuma.io"' in gone
