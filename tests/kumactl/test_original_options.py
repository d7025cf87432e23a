"""What the original's kumactl can do and the tour of the README does not show, against a control plane that runs."""

import base64
import dataclasses
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import jwt
import pytest
import yaml

from demo.mesh import DemoMesh, Ports
from demo.processes import BIN, Processes, free_ports
from tests.fakes.control_plane import ALLOW_ALL, MTLS
from tests.fakes.patience import PATIENCE
from tests.kumactl import control_planes

DATAPLANE = (
    "{type: Dataplane, mesh: default, name: web-09, networking: {address: 10.0.0.1, "
    "inbound: [{port: 80, servicePort: 8080, tags: {kuma.io/service: web}}]}}"
)

_PORTS = ("API_SERVER_HTTP", "API_SERVER_HTTPS", "DIAGNOSTICS_SERVER", "DP_SERVER", "XDS_SERVER")


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoMesh]:
    home = tmp_path_factory.mktemp("cp")
    with Processes(home) as processes:
        found = DemoMesh(home, processes)
        found.ports = Ports(*free_ports(len(_PORTS)))  # never those of another control plane on this machine
        ports = zip(_PORTS, dataclasses.astuple(found.ports), strict=True)
        found.environment |= {f"KUMA_{name}_PORT": str(port) for name, port in ports}
        found.start_control_plane()
        control_planes.add(found)
        applied = run(found, "apply", "-f", "-", stdin="\n---\n".join((MTLS, ALLOW_ALL, DATAPLANE)))
        assert applied.returncode == 0, applied.stderr
        yield found


def run(mesh: DemoMesh, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BIN / "kumactl", *arguments], cwd=mesh.home, env={**os.environ, **mesh.environment}, input=stdin,
        capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip


def refused(done: subprocess.CompletedProcess[str], text: str) -> None:
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert text in done.stderr


def key_of(mesh: DemoMesh, kind: str, name: str) -> str:
    """The path of a file with a signing key of the control plane."""
    secret = json.loads(run(mesh, "get", kind, name, "-o", "json").stdout)
    path = mesh.home / f"{name}.pem"
    path.write_bytes(base64.b64decode(secret["data"]))
    return str(path)


def test_tokens_are_signed_without_a_control_plane_and_hold(mesh: DemoMesh) -> None:
    key = ("--signing-key-path", key_of(mesh, "global-secret", "user-token-signing-key-1"), "--kid", "1")
    done = run(mesh, "--config-file", "nowhere", "generate", "user-token", "--name", "john", "--group", "a",
               "--valid-for", "1h", *key)  # fmt: skip
    assert done.returncode == 0, done.stderr
    add = ("--config-file", "john", "config", "control-planes", "add", "--name", "p")
    address = ("--address", f"http://localhost:{mesh.ports.api}")
    auth = ("--auth-type", "tokens", "--auth-conf", f"token={done.stdout}")
    assert run(mesh, *add, *address, *auth).returncode == 0
    refused(run(mesh, "--config-file", "john", "get", "secrets"), 'user "john/a,mesh-system:authenticated" cannot')


def test_a_dataplane_token_is_the_same_wherever_it_is_signed(mesh: DemoMesh) -> None:
    key = ("--signing-key-path", key_of(mesh, "secret", "dataplane-token-signing-key-default-1"), "--kid", "1")
    arguments = ("generate", "dataplane-token", "--name", "web-09", "--tag", "kuma.io/service=web,api")
    claims = []
    for more in ((), key):
        token = run(mesh, *arguments, *more).stdout
        assert jwt.get_unverified_header(token) == {"alg": "RS256", "kid": "1", "typ": "JWT"}
        found = jwt.decode(token, options={"verify_signature": False})
        assert (found["exp"] - found["iat"], found["iat"] - found["nbf"]) == (30 * 86400, 300)
        claims.append({name: value for name, value in found.items() if name not in ("exp", "iat", "nbf", "jti")})
    assert claims[0] == claims[1]


def test_signing_that_makes_no_sense(mesh: DemoMesh) -> None:
    (mesh.home / "no-key").write_text("x")
    token = ("generate", "user-token", "--name", "x", "--valid-for", "1h")
    refused(run(mesh, *token, "--kid", "1"), "--signing-key-path and --kid are given together or not at all")
    refused(run(mesh, *token, "--signing-key-path", "nowhere", "--kid", "1"), "cannot read nowhere")
    refused(run(mesh, *token, "--signing-key-path", "no-key", "--kid", "1"), "does not hold a private key in PEM")


def test_there_is_one_zone_and_no_proxy_between_zones(mesh: DemoMesh) -> None:
    refused(run(mesh, "generate", "zone-token", "--zone", "east", "--valid-for", "1h"), "zones are not implemented")
    assert [line.split()[0] for line in run(mesh, "get", "zones").stdout.splitlines()] == ["NAME", "default"]
    assert run(mesh, "get", "meshtimeouts").stdout == "MESH   NAME   AGE\n"
    listed = json.loads(run(mesh, "get", "healthchecks", "-o", "json").stdout)
    assert listed == {"total": 0, "items": [], "next": None}
    refused(run(mesh, "get", "zone", "east"), "No resources found")
    refused(run(mesh, "delete", "zone", "east"), "not implemented by this control plane")
    assert run(mesh, "inspect", "zones").stdout.splitlines()[1].split() == ["default", "Online"]
    for command in ("zone-ingresses", "zoneegresses"):
        (headers,) = run(mesh, "inspect", command).stdout.splitlines()
        assert headers.startswith("NAME   STATUS   LAST CONNECTED AGO   LAST UPDATED AGO   TOTAL UPDATES")
    assert headers.endswith("KUMA-DP VERSION   ENVOY VERSION")


def test_inspecting_dataplanes(mesh: DemoMesh) -> None:
    assert "web-09" in run(mesh, "inspect", "dataplanes", "--ingress").stdout
    assert "web-09" not in run(mesh, "inspect", "dataplanes", "--gateway").stdout
    refused(run(mesh, "inspect", "dataplane", "web-09", "--config-dump"), "Not found")
    more = ("--type", "config", "--shadow", "--include", "diff")
    assert "envoy.config.listener.v3.Listener" in run(mesh, "inspect", "dataplane", "web-09", *more[:2]).stdout
    refused(run(mesh, "inspect", "dataplane", "web-09", *more), "kumactl preview -f FILE")
    refused(run(mesh, "inspect", "dataplane", "web-09", "--shadow"), "need --type=config")


def test_tags_select_as_they_do_in_the_original(mesh: DemoMesh) -> None:
    for tag, shown in (("kuma.io/service=*", True), ("kuma.io/service=we", True), ("kuma.io/service=db", False)):
        assert ("web-09" in run(mesh, "inspect", "dataplanes", "--tag", tag).stdout) is shown, tag
    both = ("--tag", "kuma.io/service=web", "--tag", "other=*")
    assert "web-09" not in run(mesh, "inspect", "dataplanes", *both).stdout


INSPECTIONS = [
    ("dataplane", "web-09"),
    ("traffic-permission", "allow-all"),
    ("traffic-permission", "allow-all", "--new-api"),
]


@pytest.mark.parametrize("arguments", INSPECTIONS, ids=" ".join)
def test_inspections_are_there_for_machines_too(mesh: DemoMesh, arguments: tuple[str, ...]) -> None:
    found = json.loads(run(mesh, "inspect", *arguments, "-o", "json").stdout)
    assert (found["total"], len(found["items"]), found["next"]) == (1, 1, None)
    assert yaml.safe_load(run(mesh, "inspect", *arguments, "-o", "yaml").stdout) == found


def test_forms_that_are_not_there(mesh: DemoMesh) -> None:
    refused(run(mesh, "inspect", "dataplane", "web-09", "--type", "stats", "-o", "yaml"), "--output=yaml needs")
    refused(run(mesh, "inspect", "meshes", "--watch", "default", "-o", "json"), "--watch MESH prints lines")
    refused(run(mesh, "inspect", "traffic-permission", "no", "--new-api"), 'TrafficPermission "no" in mesh "default"')


def test_inspecting_policies_by_the_new_api(mesh: DemoMesh) -> None:
    done = run(mesh, "inspect", "traffic-permission", "allow-all", "--new-api")
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["Type", "Mesh", "Name"], ["Dataplane", "default", "web-09"], ["Total:", "1"],
    ]  # fmt: skip


def test_certificates_for_trying_things_out(mesh: DemoMesh, tmp_path: Path) -> None:
    make = ("generate", "tls-certificate", "--type", "server")
    refused(run(mesh, *make), "--hostname is needed")
    files = ("--cert-file", str(tmp_path / "c.pem"), "--key-file", str(tmp_path / "k.pem"))
    for key_type in ("rsa", "ecdsa"):
        assert run(mesh, *make, "--hostname", "cp.example,10.0.0.1", "--key-type", key_type, *files).returncode == 0
        assert (tmp_path / "k.pem").stat().st_mode & 0o777 == 0o400
        verified = subprocess.run(
            ["openssl", "verify", "-purpose", "sslserver", "-x509_strict", "-verify_hostname", "cp.example",
             "-CAfile", tmp_path / "c.pem", tmp_path / "c.pem"], capture_output=True, text=True, timeout=PATIENCE,
        )  # fmt: skip
        assert verified.returncode == 0, verified.stdout + verified.stderr
        refused(run(mesh, *make, "--hostname", "x", *files), "is there already, and is not overwritten")
        for name in ("k.pem", "c.pem"):
            (tmp_path / name).unlink()
    refused(run(mesh, *make, "--hostname", "nö de", *files), "is no name of a host")


@pytest.mark.parametrize(
    "text",
    [
        'data: "aHVudGVy==\nx: y',
        "data: *aHVudGVy==",
        "data: !aHVudGVy x",
        "data: %aHVudGVy==",
        "data: [aHVudGVy==",
    ],
)
def test_no_error_quotes_what_a_secret_holds(mesh: DemoMesh, text: str) -> None:
    done = run(mesh, "apply", "-f", "-", stdin=f"type: Secret\nmesh: default\nname: s\n{text}\n")
    refused(done, "is not valid YAML")
    assert "aHVudGVy" not in done.stderr
    assert "line " in done.stderr
