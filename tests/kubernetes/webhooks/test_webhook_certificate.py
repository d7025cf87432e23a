"""The API server does not know who answers for the webhooks: what they guard cannot be written, and it is told."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from demo.processes import until
from kuma.app.serving import server_certificate
from kuma.app.serving.server_certificate import ServerCertificate
from kuma.kubernetes.install.options import NAME
from tests.kubernetes.kubectl import apply, builtin, exists, mesh, metrics_of, refused, secret, shown
from tools.kubernetes.cluster import Cluster
from tools.kubernetes.installed import NAMESPACE, Installed, installed, kumactl

pytestmark = pytest.mark.timeout(3600)  # the first test waits until the API server is built
POD = "cp-that-is-told-of"


def given(directory: Path, now: datetime) -> ServerCertificate:
    """Another certificate, a year long from then on, under the CA in a directory."""
    for name in ("tls.crt", "tls.key"):
        (directory / name).unlink(missing_ok=True)
    return server_certificate.ensure(directory, ("127.0.0.1", "localhost"), now)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> ServerCertificate:
    """As from `tls.general.secretName`."""
    return given(tmp_path_factory.mktemp("given"), datetime.now(UTC))


@pytest.fixture(scope="module")
def kuma(cluster: Cluster, files: ServerCertificate, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    settings = {
        "KUMA_GENERAL_TLS_CERT_FILE": str(files.chain),
        "KUMA_GENERAL_TLS_KEY_FILE": str(files.key),
        "KUMA_GENERAL_TLS_CA_FILE": str(files.ca),
        "KUMA_RUNTIME_KUBERNETES_POD_NAME": POD,
        "KUMA_API_SERVER_AUTHN_LOCALHOST_IS_ADMIN": "true",
    }
    with installed(cluster, tmp_path_factory.mktemp("control-plane"), settings=settings) as found:
        (spec,) = (
            one["spec"]["template"]["spec"]
            for one in yaml.safe_load_all(kumactl("install", "control-plane").stdout)
            if one["kind"] == "Deployment"
        )
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": POD, "namespace": NAMESPACE}, "spec": spec}
        cluster.kubectl("create", "--validate=false", "-f", "-", text=json.dumps(pod))
        apply(cluster, mesh("kept", enabledBackend="ca-1", backends=[builtin()]))
        until("there is a root", lambda: exists(cluster, "secret", "kept.ca-builtin-key-ca-1"), found.processes)
        yield found


def cannot_be_weakened(kuma: Installed, reason: str) -> None:
    """Tells whether what could break mutual TLS is refused with this reason, and none of it is done."""
    before = shown(kuma.cluster, "mesh", "kept")["spec"]
    for text in (mesh("kept"), mesh("new"), secret("kept.ca-builtin-key-ca-1", b"another", "kept")):
        said = refused(kuma.cluster, text)
        assert "failed calling webhook" in said
        assert reason in said
    root = ("delete", "secret", "kept.ca-builtin-key-ca-1", "-n", NAMESPACE)
    assert reason in kuma.cluster.kubectl(*root, check=False).stderr
    assert shown(kuma.cluster, "mesh", "kept")["spec"] == before
    assert not exists(kuma.cluster, "mesh", "new")
    apply(kuma.cluster, "{apiVersion: v1, kind: ConfigMap, metadata: {name: of-somebody}}")  # what is none of ours


def test_with_a_certificate_that_has_ended_nothing_can_be_weakened_until_it_is_replaced(
    kuma: Installed, files: ServerCertificate
) -> None:
    kuma.kill()
    given(files.ca.parent, datetime.now(UTC) - timedelta(days=500))
    kuma.process = kuma.start("ended")
    until("it serves", lambda: kuma.get("/") is not None, kuma.processes)
    cannot_be_weakened(kuma, "certificate has expired")

    def events() -> str:
        return kuma.cluster.kubectl(
            "get", "events", "-n", NAMESPACE, f"--field-selector=involvedObject.name={POD}"
        ).stdout

    until("an event tells it", lambda: "CertificateEnds" in events(), kuma.processes)
    assert "the servers' certificate ended at" in kuma.log("ended")
    ends = float(metrics_of(kuma).partition("\nkuma_server_certificate_expiration_timestamp_seconds ")[2].split()[0])
    assert ends < datetime.now(UTC).timestamp()
    config = ("--config-file", kuma.directory / "config")
    kumactl(*config, "config", "control-planes", "add", "--name", "here", "--address", kuma.url)
    found = kumactl(*config, "check", check=False)
    assert found.returncode == 2
    assert "server certificate" in found.stdout

    given(files.ca.parent, datetime.now(UTC))
    until("changes are judged", kuma.judges, kuma.processes)
    apply(kuma.cluster, mesh("kept", enabledBackend="ca-1", backends=[builtin(mode="PERMISSIVE")]))


def test_webhooks_with_a_wrong_ca_refuse_what_they_guard_until_they_may_be_put_right(kuma: Installed) -> None:
    """The control plane lacks a verb, too: else it would put them right before anybody could write."""
    cluster = kuma.cluster
    role = f"/apis/rbac.authorization.k8s.io/v1/clusterroles/{NAME}"
    granted = yaml.safe_load(cluster.kubectl("get", "clusterrole", NAME, "-o", "yaml").stdout)["rules"]
    rules = [
        {**rule, "verbs": [verb for verb in rule["verbs"] if verb != "patch"]}
        if "validatingwebhookconfigurations" in rule["resources"] else rule for rule in granted
    ]  # fmt: skip
    assert rules != granted
    other = cluster.kubectl("get", "configmap", "kube-root-ca.crt", "-n", "default", "-o", r"jsonpath={.data.ca\.crt}")
    bundle = base64.b64encode(other.stdout.encode()).decode()
    try:
        cluster.ask("PATCH", role, {"rules": rules})

        def is_told() -> bool:
            for kind, name in (
                ("mutatingwebhookconfiguration", "kuma-admission-mutating-webhook-configuration"),
                ("validatingwebhookconfiguration", "kuma-validating-webhook-configuration"),
            ):
                hooks = json.loads(cluster.kubectl("get", kind, name, "-o", "json").stdout)["webhooks"]
                for hook in hooks:
                    hook["clientConfig"]["caBundle"] = bundle
                patch = json.dumps({"webhooks": hooks})
                cluster.kubectl("patch", kind, name, "--type=merge", "-p", patch)
            return any("webhooks not registered" in log.read_text() for log in kuma.directory.glob("*.log"))

        until("the control plane tells that it cannot put them right", is_told, kuma.processes)
        cannot_be_weakened(kuma, "certificate signed by unknown authority")
        assert 'kuma_kubernetes_controller_failures_total{controller="webhook registration"}' in metrics_of(kuma)
    finally:
        cluster.ask("PATCH", role, {"rules": granted})
    until("changes are judged", kuma.judges, kuma.processes)
