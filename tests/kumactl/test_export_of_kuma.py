"""What Kuma exports is applied as it stands: meshes come with their CA, and tokens that were made before hold."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from demo.mesh import DemoMesh
from tests.fakes import cas
from tests.kumactl.control_planes import known_to_kumactl
from tests.kumactl.test_commands import run

TIMES = {"creationTime": "2024-05-01T10:00:00.123456789Z", "modificationTime": "2024-05-01T10:00:00Z"}
LABELS = {"kuma.io/origin": "zone", "kuma.io/env": "universal", "kuma.io/mesh": "payments", "kuma.io/zone": "default"}
IN_MESH = {"mesh": "payments", **TIMES, "labels": LABELS}
TARGETS_MESH = {"targetRef": {"kind": "Mesh"}}


def document(kind: str, name: str, **content: Any) -> dict[str, Any]:
    return {"type": kind, "name": name, **content}


def secret(kind: str, name: str, pem: str, **more: Any) -> dict[str, Any]:
    return document(kind, name, data=base64.b64encode(pem.encode()).decode(), **(more or TIMES))


def exported(home: Path, root: cas.Ca, token_key: str, user_key: str) -> str:
    """The shapes of `kumactl export --profile all` of 2.7, and the labels and extra kinds of 2.12, in its order."""
    inbound = {"port": 80, "servicePort": 8080, "tags": {"kuma.io/service": "web", "kuma.io/zone": "default"}}
    documents = [
        document(
            "Mesh", "payments", **TIMES, skipCreatingInitialPolicies=["*"],
            mtls={"enabledBackend": "ca-1", "backends": [{"name": "ca-1", "type": "builtin"}]},
        ),
        secret("Secret", "dataplane-token-signing-key-payments-1", token_key, **IN_MESH),
        secret("Secret", "payments.ca-builtin-cert-ca-1", root.cert, **IN_MESH),
        secret("Secret", "payments.ca-builtin-key-ca-1", root.key, **IN_MESH),
        document("Dataplane", "web-01", **IN_MESH, networking={"address": "10.0.0.1", "inbound": [inbound]}),
        document("DataplaneInsight", "web-01", **IN_MESH, subscriptions=[{"id": "1", "controlPlaneInstanceId": "x"}]),
        document("HostnameGenerator", "local-universal-mesh-service", **TIMES, spec={"template": "{{ .Name }}.x"}),
        document("MeshInsight", "payments", **TIMES, lastSync="2024-05-01T10:00:00Z", dataplanes={"total": 1}),
        document("MeshCircuitBreaker", "mesh-circuit-breaker-all-payments", **IN_MESH, spec={
            **TARGETS_MESH, "to": [{**TARGETS_MESH, "default": {"connectionLimits": {"maxConnections": 1024}}}],
        }),
        document("MeshTrafficPermission", "allow-all", **IN_MESH, spec={
            **TARGETS_MESH, "from": [{**TARGETS_MESH, "default": {"action": "Allow"}}],
        }),
        document("ServiceInsight", "all-services-payments", **IN_MESH, services={"web": {"status": "online"}}),
        document("TrafficPermission", "web-only", **IN_MESH, sources=[{"match": {"kuma.io/service": "web"}}],
                 destinations=[{"match": {"kuma.io/service": "*"}}]),
        document("Zone", "default", **TIMES, enabled=True),
        secret("GlobalSecret", "admin-user-token", "e.y.J"),
        secret("GlobalSecret", "zone-token-signing-key-1", token_key),
        secret("GlobalSecret", "user-token-signing-key-1", user_key),
    ]  # fmt: skip
    return "# Product: Kuma, Version: 2.12.13\n" + "".join(f"---\n{yaml.safe_dump(d)}" for d in documents)


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[DemoMesh]:
    with known_to_kumactl(tmp_path) as found:
        yield found


def test_an_export_of_kuma_is_applied_as_it_stands(mesh: DemoMesh) -> None:
    home = mesh.home
    usage = ("basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign")
    root = cas.root(home, "payments", cas.with_extensions(*usage, "subjectAltName=URI:spiffe://payments"), days="3650")
    keys = []
    for name in ("token.pem", "user.pem"):
        pem = run(mesh, "generate", "signing-key", "--format", "pem").stdout
        (home / name).write_text(pem)
        (home / name).chmod(0o600)
        keys.append(pem)
    (home / "everything.yaml").write_text(exported(home, root, *keys))

    tried = run(mesh, "apply", "-f", "everything.yaml", "--dry-run=server")
    assert tried.returncode == 0, tried.stderr
    applied = run(mesh, "apply", "-f", "everything.yaml")
    assert applied.returncode == 0, applied.stderr
    for left_out in ("DataplaneInsight", "MeshInsight", "ServiceInsight", "Zone", "HostnameGenerator"):
        assert f"({left_out} " in applied.stderr
    assert "MeshCircuitBreaker is stored and given back, and has no effect here" in applied.stderr

    shown = run(mesh, "get", "secret", "payments.ca-builtin-cert-ca-1", "-m", "payments", "-o", "yaml").stdout
    stored = yaml.safe_load(shown)
    assert base64.b64decode(stored["data"]).decode() == root.cert, "no other root takes its place"
    assert "payments" in run(mesh, "inspect", "meshes").stdout
    shown = run(mesh, "get", "all", "-m", "payments").stdout
    assert all(name in shown for name in ("web-01", "allow-all", "web-only"))
    again = run(mesh, "apply", "-f", "everything.yaml", "--dry-run=server").stdout.splitlines()
    assert [line for line in again if "unchanged" not in line] == []

    token = run(
        mesh, "generate", "user-token", "--name", "john", "--valid-for", "1h",
        "--signing-key-path", str(home / "user.pem"), "--kid", "1",
    ).stdout  # fmt: skip
    address = f"http://localhost:{mesh.ports.api}"
    known = run(mesh, "config", "control-planes", "add", "--name", "john", "--address", address,
                "--auth-type", "tokens", "--auth-conf", f"token={token}")  # fmt: skip
    assert (known.returncode, known.stderr) == (0, ""), "a token of the old control plane holds"
