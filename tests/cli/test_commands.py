"""The commands as users type them, against a control plane that runs."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import jwt
import pytest
import yaml

from demo.mesh import DemoMesh
from demo.processes import BIN, Processes, free_ports
from tests.fakes.control_plane import ALLOW_ALL, MTLS

MESH_AND_PERMISSION = f"---\n{MTLS}\n---\n{ALLOW_ALL}\n"
KUBERNETES = """
apiVersion: kuma.io/v1alpha1
kind: Mesh
metadata: {name: other}
spec: {mtls: {enabledBackend: ca-1, backends: [{name: ca-1, type: builtin}]}}
"""


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoMesh]:
    home = tmp_path_factory.mktemp("cp")
    with Processes(home) as processes:
        found = DemoMesh(home, processes)
        found.start_control_plane()
        address = f"http://localhost:{found.ports.api}"
        found.kumactl("config", "control-planes", "add", "--name", "test", "--address", address)
        yield found


def run(mesh: DemoMesh, *arguments: str, stdin: str = "", program: str = "kumactl") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BIN / program, *arguments],
        cwd=mesh.home,
        env={**os.environ, **mesh.environment},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
    )


def refused(done: subprocess.CompletedProcess[str], *texts: str) -> None:
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("Error: ")
    for text in texts:
        assert text in done.stderr


def test_apply_get_and_delete(mesh: DemoMesh) -> None:
    done = run(mesh, "apply", "-f", "-", stdin=MESH_AND_PERMISSION + "---\n" + KUBERNETES)
    follow = "A staged change has begun; follow it with: kumactl inspect meshes --watch"
    assert done.stdout.splitlines() == [
        'Mesh "default" configured', f"{follow} default", 'TrafficPermission "allow-all" in mesh "default" created',
        'Mesh "other" created', f"{follow} other",
    ]  # fmt: skip
    assert follow not in run(mesh, "apply", "-f", "-", stdin=MTLS).stdout, "nothing is changed by it"
    followed = run(mesh, "inspect", "meshes", "--watch", "default", "--timeout", "20s")
    assert (followed.returncode, followed.stdout.splitlines()[-1]) == (0, "complete")
    rows = [line.split()[:3] for line in run(mesh, "inspect", "meshes").stdout.splitlines()]
    assert ["default", "builtin/ca-1", "complete"] in rows
    assert "Warning: mutual TLS is on" in done.stderr
    meshes = run(mesh, "get", "meshes").stdout.splitlines()
    assert [line.split()[:2] for line in meshes] == [
        ["NAME", "mTLS"], ["default", "builtin/ca-1"], ["other", "builtin/ca-1"],
    ]  # fmt: skip
    as_yaml = yaml.safe_load(run(mesh, "get", "mesh", "default", "-o", "yaml").stdout)
    assert as_yaml["mtls"] == yaml.safe_load(MTLS)["mtls"]
    listed = json.loads(run(mesh, "get", "traffic-permissions", "-o", "json").stdout)
    assert (listed["total"], listed["items"][0]["name"], listed["next"]) == (1, "allow-all", None)
    secrets = run(mesh, "get", "secrets", "-m", "default").stdout
    assert [line.split()[1] for line in secrets.splitlines()] == [
        "NAME", "dataplane-token-signing-key-default-1", "default.ca-builtin-cert-ca-1", "default.ca-builtin-key-ca-1",
    ]  # fmt: skip
    assert run(mesh, "delete", "mesh", "other").stdout == 'deleted Mesh "other"\n'
    assert run(mesh, "delete", "traffic-permission", "allow-all").stdout == 'deleted TrafficPermission "allow-all"\n'


def test_files_directories_variables_and_dry_runs(mesh: DemoMesh) -> None:
    directory = mesh.home / "files"
    directory.mkdir()
    (directory / "a.yaml").write_text("{type: Mesh, name: '{{ mesh.name }}'}")
    (directory / "notes.txt").write_text("not a resource")
    done = run(mesh, "apply", "-f", "files", "-v", "mesh.name=varied", "--dry-run")
    assert yaml.safe_load(done.stdout)["name"] == "varied"
    refused(run(mesh, "get", "mesh", "varied"), "No resources found")
    refused(run(mesh, "apply", "-f", "files", "-v", "x=y"), "has no value for mesh.name")


@pytest.mark.parametrize(
    ("text", "complaints"),
    [
        ("{type: Mesh, name: default, mtls: {backend: []}}", ["* mtls.backend: unknown field; did you mean backends?"]),
        (KUBERNETES.replace("backends:", "backend:"), ["* spec.mtls.backend: unknown field; did you mean backends?"]),
        ("type: [", ["is not valid YAML"]),
        ("{type: Mehs, name: x}", ["type: unknown resource type", "Known types: "]),
        ("{type: Mesh, name: x, name: y}", ["name: is written twice"]),
        ("", ["there is no resource in -"]),
        ("just text", ["a resource has to be a map"]),
        ("{type: Dataplane, mesh: nowhere, name: x, networking: {address: 10.0.0.1, inbound: [{port: 1, "
         "servicePort: 2, tags: {kuma.io/service: x}}]}}", ["Failed to retrieve Mesh (Not found)"]),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_the_field(mesh: DemoMesh, text: str, complaints: list[str]) -> None:
    refused(run(mesh, "apply", "-f", "-", stdin=text), *complaints)


def test_one_wrong_document_keeps_all_from_being_sent(mesh: DemoMesh) -> None:
    text = "{type: Mesh, name: first}\n---\n{type: Mesh, name: second, mtsl: {}}"
    refused(run(mesh, "apply", "-f", "-", stdin=text), "mtsl: unknown field; did you mean mtls?")
    refused(run(mesh, "get", "mesh", "first"), "No resources found")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["get", "thing"], "unknown TYPE: thing. Allowed values: "),
        (["get", "mesh"], "which mesh? Give its name"),
        (["delete", "mesh", "nothing"], 'there is no Mesh with name "nothing"'),
        (["apply", "-f", "missing.yaml"], "cannot read missing.yaml: No such file or directory"),
        (["generate", "dataplane-token", "--mesh", "nowhere"], "Failed to retrieve Mesh"),
        (["generate", "dataplane-token", "--valid-for", "soon"], "* validFor: is invalid"),
        (["--api-timeout", "x", "get", "meshes"], "--api-timeout has to be"),
        (["config", "control-planes", "switch", "--name", "none"], 'there is no Control Plane with name "none"'),
    ],
)
def test_mistakes_on_the_command_line(mesh: DemoMesh, arguments: list[str], complaint: str) -> None:
    refused(run(mesh, *arguments), complaint)


def test_a_control_plane_that_is_down(mesh: DemoMesh, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    config = tmp_path / "config"
    add = ["config", "control-planes", "add", "--name", "down", "--address", f"http://localhost:{port}"]
    refused(run(mesh, "--config-file", str(config), *add), f"cannot reach the control plane at http://localhost:{port}")
    assert run(mesh, "--config-file", str(config), *add, "--skip-check").returncode == 0
    assert config.stat().st_mode & 0o077 == 0
    refused(run(mesh, "--config-file", str(config), "get", "meshes"), "Is kuma-cp running?")
    done = run(mesh, "--config-file", str(config), "version")
    assert done.returncode == 0
    assert "Unable to connect to control plane" in done.stderr


def test_control_planes(mesh: DemoMesh) -> None:
    rows = run(mesh, "config", "control-planes", "list").stdout.splitlines()
    assert rows[0].split() == ["ACTIVE", "NAME", "ADDRESS"]
    assert ["*", "test", f"http://localhost:{mesh.ports.api}"] in [row.split() for row in rows]
    refused(
        run(mesh, "config", "control-planes", "add", "--name", "test", "--address", "http://localhost:1"),
        'Control Plane with name "test" already exists. Use --overwrite',
    )


def test_every_command_teaches(mesh: DemoMesh) -> None:
    for program, commands in {
        "kumactl": [[], ["apply"], ["get"], ["delete"], ["inspect", "dataplanes"], ["generate", "dataplane-token"],
                    ["config", "control-planes", "add"]],
        "kuma-dp": [[], ["run"]],
        "kuma-cp": [[], ["run"]],
    }.items():  # fmt: skip
        for command in commands:
            done = run(mesh, *command, "--help", program=program)
            assert done.returncode == 0
            assert "Usage:" in done.stdout
    assert "Example:" in run(mesh, "apply", "--help").stdout


def test_a_second_control_plane_on_the_same_files(mesh: DemoMesh) -> None:
    refused(run(mesh, "run", program="kuma-cp"), "another control plane uses")


def test_a_port_in_use(mesh: DemoMesh, tmp_path: Path) -> None:
    mine = {**mesh.environment, "KUMA_GENERAL_WORK_DIR": str(tmp_path)}
    for server in ("API_SERVER_HTTP", "API_SERVER_HTTPS", "DP_SERVER", "XDS_SERVER"):
        variable = f"KUMA_{server}_PORT"
        others = {name: "0" for name in mine if name.endswith("_PORT") and name != variable}
        done = subprocess.run(
            [BIN / "kuma-cp", "run"], env={**os.environ, **mine, **others}, capture_output=True, text=True, timeout=30
        )
        assert done.returncode == 1
        assert f"set {variable}" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("KUMA_API_SERVER_HTTP_PROT", "1", "sets nothing; did you mean KUMA_API_SERVER_HTTP_PORT?"),
        ("KUMA_API_SERVER_HTTP_PORT", "x", "KUMA_API_SERVER_HTTP_PORT: "),
        ("KUMA_STORE_TYPE", "postgres", "KUMA_STORE_TYPE: "),
        ("KUMA_XDS_DATAPLANE_DEREGISTRATION_DELAY", "10", "dataplaneDeregistrationDelay"),
    ],
)
def test_settings_that_make_no_sense(mesh: DemoMesh, name: str, value: str, complaint: str) -> None:
    done = subprocess.run(
        [BIN / "kuma-cp", "run"],
        env={**os.environ, **mesh.environment, name: value},
        capture_output=True,
        text=True,
        timeout=30,
    )
    refused(done, complaint)


def test_a_settings_file(mesh: DemoMesh, tmp_path: Path) -> None:
    (tmp_path / "cp.yaml").write_text("apiServer: {http: {prot: 1}}")
    refused(run(mesh, "run", "-c", str(tmp_path / "cp.yaml"), program="kuma-cp"), "unknown setting apiServer.http.prot")
    refused(
        run(mesh, "run", "-c", "missing.yaml", program="kuma-cp"), "cannot read the configuration file missing.yaml"
    )


DATAPLANE = (
    "{type: Dataplane, mesh: default, name: x, networking: {address: 127.0.0.1, "
    "inbound: [{port: 1, servicePort: 2, tags: {kuma.io/service: x}}]}}"
)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (
            {"--dataplane-token-file": "missing"},
            "--dataplane-token-file missing: No such file or directory. Make",
        ),
        ({"--dataplane-token-file": ""}, "--dataplane-token-file is needed"),
        ({"--dataplane-token-file": "empty"}, "--dataplane-token-file empty is empty"),
        ({"--ca-cert-file": "missing"}, "--ca-cert-file missing: No such file or directory. It is the file ca.crt"),
        ({"--ca-cert-file": "token"}, "--ca-cert-file token does not hold a certificate"),
        ({"--ca-cert-file": ""}, "is not the one that --ca-cert-file stands for"),
        ({"--dataplane-file": "missing.yaml"}, "--dataplane-file missing.yaml: No such file or directory"),
        ({"--dataplane-file": "typo.yaml"}, "networkign: unknown field; did you mean networking?"),
        ({"--dataplane-file": ""}, "say which Dataplane to run for"),
        ({"--dataplane-file": "nowhere.yaml"}, 'mesh: mesh "nowhere" does not exist'),
        ({"--cp-address": "http://localhost:1"}, "has to be an https URL"),
        ({"--cp-address": "https://localhost:API"}, "hands out no bootstraps; is that the port of the API?"),
        ({"--binary-path": "token"}, "--binary-path token: is not a program that can be run"),
        ({"--drain-time": "soon"}, "--drain-time has to be"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_what_kuma_dp_cannot_work_with(mesh: DemoMesh, change: dict[str, str], complaint: str) -> None:
    files = {
        "x.yaml": DATAPLANE, "typo.yaml": DATAPLANE.replace("networking", "networkign"), "token": "not a real one",
        "empty": "", "nowhere.yaml": DATAPLANE.replace("default", "nowhere"),
    }  # fmt: skip
    for name, text in files.items():
        mesh.write(name, text)
    arguments = {
        "--cp-address": f"https://localhost:{mesh.ports.dp}",
        "--dataplane-file": "x.yaml",
        "--dataplane-token-file": "token",
        "--ca-cert-file": "cp/ca.crt",
    } | {name: value.replace("API", str(mesh.ports.https)) for name, value in change.items()}
    done = run(mesh, "run", *(f"{name}={value}" for name, value in arguments.items() if value), program="kuma-dp")
    assert done.returncode == 1, done.stderr
    assert complaint in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_kuma_dp_waits_for_a_control_plane_that_is_down(mesh: DemoMesh) -> None:
    (port,) = free_ports(1)
    for name, text in {"x.yaml": DATAPLANE, "token": "t"}.items():
        mesh.write(name, text)
    process = subprocess.Popen(
        [BIN / "kuma-dp", "run", f"--cp-address=https://localhost:{port}", "--dataplane-file=x.yaml",
         "--dataplane-token-file=token", "--ca-cert-file=cp/ca.crt"],
        cwd=mesh.home, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    line = process.stderr.readline()
    process.terminate()
    process.communicate(timeout=20)
    assert f"the control plane at https://localhost:{port} cannot be reached" in line
    assert "Is kuma-cp running?" in line
    assert process.returncode == 0


def token_of(mesh: DemoMesh, *arguments: str) -> str:
    return run(mesh, "generate", "user-token", *arguments).stdout


def planes(mesh: DemoMesh, config: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Add a control plane to a configuration of its own."""
    common = ("config", "control-planes", "add", "--name", "p", "--overwrite")
    return run(mesh, "--config-file", config, *common, *arguments)


def test_a_user_works_over_https_with_a_token(mesh: DemoMesh) -> None:
    token = token_of(mesh, "--name", "john", "--group", "team-a", "--valid-for", "1h")
    secure = ("--address", f"https://localhost:{mesh.ports.https}", "--auth-type", "tokens")
    ca = ("--ca-cert-file", str(mesh.home / "cp" / "ca.crt"))
    refused(planes(mesh, "john", *secure, "--auth-conf", f"token={token}"), "certificate")
    assert planes(mesh, "john", *secure, *ca, "--auth-conf", f"token={token}").returncode == 0
    as_john = ("--config-file", "john")
    assert "default" in run(mesh, *as_john, "get", "meshes").stdout
    refused(
        run(mesh, *as_john, "get", "secrets"),
        'Access Denied (user "john/team-a,mesh-system:authenticated" cannot access the resource of type "Secret")',
    )
    assert token not in run(mesh, *as_john, "config", "view").stdout
    assert oct((mesh.home / "john").stat().st_mode)[-3:] == "600"


def test_credentials_that_make_no_sense(mesh: DemoMesh) -> None:
    address = ("--address", f"http://localhost:{mesh.ports.api}")
    refused(planes(mesh, "x", *address, "--auth-type", "tokens"), "--auth-conf is not valid: provide token=YOUR_TOKEN")
    refused(planes(mesh, "x", *address, "--auth-type", "magic"), 'only "tokens" is known')
    wrong = ("--auth-type", "tokens", "--auth-conf", "token=x")
    refused(planes(mesh, "x", *address, *wrong), "Invalid authentication data")
    remote = planes(mesh, "x", "--address", "http://kuma.invalid:5681", *wrong, "--skip-check")
    assert remote.returncode == 0
    assert "in the clear; use an https address" in run(mesh, "--config-file", "x", "get", "meshes").stderr


def test_signing_keys(mesh: DemoMesh) -> None:
    pem = run(mesh, "generate", "signing-key", "--format", "pem").stdout
    assert pem.startswith("-----BEGIN RSA PRIVATE KEY-----")
    (mesh.home / "key.pem").write_text(pem)
    public = run(mesh, "generate", "public-key", "--signing-key-path", "key.pem").stdout
    assert public.startswith("-----BEGIN RSA PUBLIC KEY-----")
    encoded = run(mesh, "generate", "signing-key").stdout
    secret = f"{{type: GlobalSecret, name: user-token-signing-key-2, data: {encoded}}}"
    assert run(mesh, "apply", "-f", "-", stdin=secret).returncode == 0
    assert jwt.get_unverified_header(token_of(mesh, "--name", "x", "--valid-for", "1h"))["kid"] == "2"
    refused(run(mesh, "generate", "public-key", "--signing-key-path", "nowhere"), "cannot read nowhere")


def test_everything_can_be_exported_and_applied_to_another_control_plane(mesh: DemoMesh, tmp_path: Path) -> None:
    run(mesh, "apply", "-f", "-", stdin=MESH_AND_PERMISSION)
    done = run(mesh, "export", "--profile", "all")
    assert done.returncode == 0, done.stderr
    (mesh.home / "export.yaml").write_text(done.stdout)
    with Processes(tmp_path) as processes:
        other = DemoMesh(tmp_path, processes)
        other.start_control_plane()
        address = f"http://localhost:{other.ports.api}"
        other.kumactl("config", "control-planes", "add", "--name", "other", "--address", address, "--overwrite")
        applied = run(other, "apply", "-f", str(mesh.home / "export.yaml"))
        assert applied.returncode == 0, applied.stderr
        for arguments in (("meshes",), ("secrets",), ("traffic-permissions",), ("global-secrets",)):
            assert _content(other, *arguments) == _content(mesh, *arguments)


def _content(mesh: DemoMesh, *arguments: str) -> list[dict[str, object]]:
    items = json.loads(run(mesh, "get", *arguments, "-o", "json").stdout)["items"]
    return [{k: v for k, v in item.items() if not k.endswith("Time")} for item in items]


def test_inspection_of_what_has_no_proxy(mesh: DemoMesh) -> None:
    run(mesh, "apply", "-f", "-", stdin=MESH_AND_PERMISSION)
    dataplane = (
        "{type: Dataplane, mesh: default, name: web-09, networking: {address: 10.0.0.1, "
        "inbound: [{port: 80, servicePort: 8080, tags: {kuma.io/service: web}}]}}"
    )
    run(mesh, "apply", "-f", "-", stdin=dataplane)
    shown = run(mesh, "inspect", "dataplane", "web-09").stdout
    assert shown.splitlines() == ["INBOUND 10.0.0.1:80:8080(web):", "  TrafficPermission", "    allow-all"]
    assert "ListenersConfigDump" in run(mesh, "inspect", "dataplane", "web-09", "--type", "config").stdout
    affected = run(mesh, "inspect", "traffic-permission", "allow-all").stdout
    assert affected.splitlines() == [
        "Affected data plane proxies:", "", "  web-09:", "    inbound 10.0.0.1:80:8080(web)",
    ]  # fmt: skip
    services = [line.split() for line in run(mesh, "inspect", "services").stdout.splitlines()]
    assert services == [["SERVICE", "STATUS", "DATAPLANES"], ["web", "Offline", "0/1"]]
    assert run(mesh, "get", "certificates").stdout.startswith("MESH   NAME   SPIFFE IDS")
    refused(run(mesh, "inspect", "traffic-permission", "nobody"), "Not found")


def test_secrets_are_sealed_anew_by_command(mesh: DemoMesh) -> None:
    key = mesh.home / "cp" / "kuma.db.key"
    before = key.read_text()
    assert "new key-encryption key" in run(mesh, "rekey").stdout
    assert key.read_text() != before
    assert "default" in run(mesh, "get", "secrets").stdout


def test_the_settings_in_effect(mesh: DemoMesh) -> None:
    done = run(mesh, "config", program="kuma-cp")
    assert yaml.safe_load(done.stdout)["apiServer"]["http"]["port"] == mesh.ports.api


def test_the_schema_is_brought_up_to_date_by_command(mesh: DemoMesh, tmp_path: Path) -> None:
    environment = {**os.environ, **mesh.environment, "KUMA_GENERAL_WORK_DIR": str(tmp_path)}
    for _ in range(2):
        done = subprocess.run(
            [BIN / "kuma-cp", "migrate", "up"], env=environment, capture_output=True, text=True, timeout=30
        )
        assert (done.returncode, done.stdout.strip()) == (0, f"{tmp_path / 'kuma.db'} is up to date")
    refused(run(mesh, "migrate", "up", program="kuma-cp"), "another control plane uses")
