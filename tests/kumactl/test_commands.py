"""The commands as users type them, against a control plane that runs."""

import base64
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jwt
import pytest
import yaml

from demo.mesh import DemoMesh
from demo.processes import BIN, Processes, free_ports
from kuma.app.serving import server_certificate
from tests.fakes import cas
from tests.fakes.control_plane import ALLOW_ALL, MTLS
from tests.fakes.patience import PATIENCE
from tests.kumactl.control_planes import known_to_kumactl

MESH_AND_PERMISSION = f"---\n{MTLS}\n---\n{ALLOW_ALL}\n"
KUBERNETES = """
apiVersion: kuma.io/v1alpha1
kind: Mesh
metadata: {name: other}
spec: {mtls: {enabledBackend: ca-1, backends: [{name: ca-1, type: builtin}]}}
"""


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoMesh]:
    with known_to_kumactl(tmp_path_factory.mktemp("cp")) as found:
        yield found


_NO_READINESS = {"KUMA_READINESS_PORT": "0"}
"""A port for it may be somebody else's; kuma-dp says so then, before it says what is wrong."""


def run(mesh: DemoMesh, *arguments: str, stdin: str = "", program: str = "kumactl") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BIN / program, *arguments],
        cwd=mesh.home,
        env={**os.environ, **mesh.environment, **(_NO_READINESS if program == "kuma-dp" else {})},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
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
        'Mesh "other" created', f"{follow} other", 'TrafficPermission "allow-all" in mesh "default" created',
        'Mesh "default" configured', f"{follow} default",
    ]  # fmt: skip
    assert [line for line in done.stderr.splitlines() if "mutual TLS is on" in line] == [
        'Warning: mutual TLS is on and mesh "other" has no permission: every call between its services is denied. '
        "Apply a TrafficPermission or MeshTrafficPermission that admits the callers you want",
    ]  # fmt: skip
    assert follow not in run(mesh, "apply", "-f", "-", stdin=MTLS).stdout, "nothing is changed by it"
    followed = run(mesh, "inspect", "meshes", "--watch", "default", "--timeout", "120s")
    assert (followed.returncode, followed.stdout.splitlines()[-1]) == (0, "complete")
    rows = [line.split()[:5] for line in run(mesh, "inspect", "meshes").stdout.splitlines()]
    assert ["default", "builtin/ca-1", "STRICT", "-", "complete"] in rows
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


def test_of_what_the_same_file_brings_nothing_is_said_to_be_missing(mesh: DemoMesh) -> None:
    files = [
        "{type: Mesh, name: shop}",
        "{type: TrafficPermission, mesh: shop, name: right, sources: [{match: {kuma.io/service: '*'}}], "
        "destinations: [{match: {kuma.io/service: cart}}]}",
        "{type: TrafficPermission, mesh: shop, name: wrong, sources: [{match: {kuma.io/service: '*'}}], "
        "destinations: [{match: {kuma.io/service: catr}}]}",
        "{type: Dataplane, mesh: shop, name: cart-01, networking: {address: 10.0.0.1, inbound: "
        "[{port: 80, servicePort: 8085, tags: {kuma.io/service: cart}}]}}",
        "{type: Dataplane, mesh: shop, name: card-01, networking: {address: 10.0.0.2, inbound: "
        "[{port: 80, servicePort: 8085, tags: {kuma.io/service: card}}]}}",
    ]
    for _ in range(2):
        done = run(mesh, "apply", "-f", "-", stdin="\n---\n".join(files))
        assert [line for line in done.stderr.splitlines() if "no Dataplane" in line] == [
            'Warning: destinations[0].match: no Dataplane of the mesh has the tag kuma.io/service "catr"; '
            'the nearest is "cart"'
        ]
        applied = [line.rpartition(" ")[0] for line in done.stdout.splitlines()]
        assert sorted(applied) == sorted(set(applied))
        assert 'TrafficPermission "wrong" in mesh "shop"' in applied
    assert run(mesh, "delete", "dataplane", "cart-01", "card-01", "-m", "shop").returncode == 0
    assert run(mesh, "delete", "mesh", "shop").returncode == 0


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
        ("", ["there is no resource in standard input"]),
        ("just text", ["a resource has to be a map"]),
        ("{type: Dataplane, mesh: nowhere, name: x, networking: {address: 10.0.0.1, inbound: [{port: 1, "
         "servicePort: 2, tags: {kuma.io/service: x}}]}}", ["Error: nothing was applied, because meshes are missing\n"
         '* standard input: Dataplane "x" in mesh "nowhere": mesh "nowhere" does not exist; create it first']),
        ("{type: Config, name: x}", ['type: unknown resource type "Config"']),
        ("{type: Mesh, name: x}\n---\n{type: Mesh, name: second, mtsl: {}}\n---\nno\n---\n{type: Mehs, name: z}",
         ['standard input is not valid\n* document 2 (Mesh "second"): mtsl: unknown field; did you mean mtls?\n'
          "* document 3: a resource has to be a map", '* document 4 (Mehs "z"): type: unknown resource type']),
        (f"{{type: Secret, name: s, data: {'A' * (10 << 20)}}}",
         ["standard input: document 1 has 10,485,791 bytes; a resource has at most 1 MiB"]),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_the_field(mesh: DemoMesh, text: str, complaints: list[str]) -> None:
    refused(run(mesh, "apply", "-f", "-", stdin=text), *complaints)


def test_one_wrong_document_keeps_all_from_being_sent(mesh: DemoMesh) -> None:
    text = "{type: Mesh, name: first}\n---\n{type: Mesh, name: second, mtsl: {}}"
    refused(run(mesh, "apply", "-f", "-", stdin=text), "mtsl: unknown field; did you mean mtls?")
    refused(run(mesh, "get", "mesh", "first"), "No resources found")


def test_what_the_server_refuses_is_said_with_what_was_applied_and_what_was_not(mesh: DemoMesh) -> None:
    key = "{type: Secret, name: dataplane-token-signing-key-default-9, data: eA==}"  # only the server knows of keys
    (mesh.home / "several.yaml").write_text(f"{{type: Mesh, name: one}}\n---\n{key}\n---\n{{type: Mesh, name: two}}")
    done = run(mesh, "apply", "-f", "several.yaml")
    assert done.stdout == 'Mesh "one" created\nMesh "two" created\n'
    refused(
        done, 'several.yaml: Secret "dataplane-token-signing-key-default-9" in mesh "default"', "has to be an RSA key",
        '\nApplied before: Mesh "one", Mesh "two"\n',
    )  # fmt: skip
    for name in ("one", "two"):
        run(mesh, "delete", "mesh", name)


SECOND = "{type: Mesh, name: second, mtls: {enabledBackend: own, backends: [{name: own, type: provided, conf: %s}]}}"
SECRETS_OF_SECOND = SECOND % "{cert: {secret: cert}, key: {secret: key}}"


def secrets(ca: cas.Ca) -> str:
    """The two Secrets of a CA, the certificate first."""
    pair = {"cert": ca.cert, "key": ca.key}
    return "\n---\n".join(
        f"{{type: Secret, mesh: second, name: {name}, data: {base64.b64encode(text.encode()).decode()}}}"
        for name, text in pair.items()
    )


def test_what_belongs_together_is_applied_in_an_order_that_works(mesh: DemoMesh, tmp_path: Path) -> None:
    """In whatever order it stands: no warning that the same file makes untrue, and no mesh that has to come first."""
    ca = cas.root(tmp_path, "own", days="90")
    permission = ALLOW_ALL.replace("default", "second")
    done = run(mesh, "apply", "-f", "-", stdin="\n---\n".join((permission, SECRETS_OF_SECOND, secrets(ca))))
    assert (done.returncode, done.stderr) == (0, "")
    assert [line for line in done.stdout.splitlines() if "staged" not in line] == [
        'Secret "key" in mesh "second" created', 'Secret "cert" in mesh "second" created',
        'TrafficPermission "allow-all" in mesh "second" created', 'Mesh "second" created',
    ]  # fmt: skip
    followed = run(mesh, "inspect", "meshes", "--watch", "second", "--timeout", "20s")
    assert (followed.returncode, followed.stdout.splitlines()[-1]) == (0, "complete")
    done = run(mesh, "apply", "-f", "-", stdin=secrets(cas.root(tmp_path, "another", days="90")))
    assert (done.returncode, done.stderr) == (0, ""), "half of the pair was another for an instant only"
    run(mesh, "delete", "mesh", "second")


def test_what_never_comes_is_waited_for_and_shown(mesh: DemoMesh, tmp_path: Path) -> None:
    cert, _, _ = secrets(cas.root(tmp_path, "own", days="90")).partition("\n---\n")
    done = run(mesh, "apply", "-f", "-", stdin=f"{SECRETS_OF_SECOND}\n---\n{cert}")
    assert done.returncode == 1
    for said in ('Resource not found: type="Secret" name="key"', 'Begun, and waiting for the rest: Mesh "second"\n'):
        assert said in done.stderr
    rows = [line for line in run(mesh, "inspect", "meshes").stdout.splitlines() if line.startswith("second")]
    assert "waiting" in rows[0]
    run(mesh, "delete", "mesh", "second")


def test_what_is_declared_twice_is_meant_as_it_stands_last(mesh: DemoMesh) -> None:
    run(mesh, "apply", "-f", "-", stdin=MESH_AND_PERMISSION)
    before = _changes(mesh)
    done = run(mesh, "apply", "-f", "-", stdin=f"{{type: Mesh, name: default}}\n---\n{MTLS}")
    assert done.stderr == 'Warning: Mesh "default" is declared 2 times: what comes last is applied\n'
    assert _changes(mesh) == before


BARE = "{type: Mesh, name: default}"
WEAKENS = (
    "Warning: this weakens the mesh: mtls: is left out: this turns mutual TLS off, plaintext is sent and admitted,"
)


def test_what_weakens_is_told_and_recorded_and_a_guard_refuses_it(mesh: DemoMesh) -> None:
    run(mesh, "apply", "-f", "-", stdin=MESH_AND_PERMISSION)
    before = len(_events(mesh, "weakened"))
    off = run(mesh, "apply", "-f", "-", stdin=BARE)
    assert (off.returncode, off.stderr.startswith(WEAKENS)) == (0, True), off.stderr
    (event,) = _events(mesh, "weakened")[before:]
    assert (event["type"], event["name"], "turns mutual TLS off" in event["weakens"][0]) == ("Mesh", "default", True)

    guarded = MTLS.replace("name: default", "name: default, labels: {kuma.io/weakening: refused}")
    run(mesh, "apply", "-f", "-", stdin=guarded)
    refused(
        run(mesh, "apply", "-f", "-", stdin=BARE),
        "* mtls: is left out: this turns mutual TLS off", "* labels: removes the guard", "--allow-weakening of kumactl",
    )  # fmt: skip
    narrow = ALLOW_ALL.replace("allow-all", "narrow").replace("'*'", "web")
    assert run(mesh, "apply", "-f", "-", stdin=narrow).stderr == ""
    refused(
        run(mesh, "delete", "traffic-permission", "narrow"), "all callers with an identity of the mesh are admitted"
    )
    done = run(mesh, "delete", "traffic-permission", "narrow", "--allow-weakening")
    assert (done.returncode, "Warning: this weakens the mesh: sources: all callers" in done.stderr) == (0, True)
    assert run(mesh, "apply", "-f", "-", "--allow-weakening", stdin=BARE).returncode == 0
    assert [event["type"] for event in _events(mesh, "weakened")[before:]] == [
        "Mesh", "TrafficPermission", "Mesh",
    ]  # fmt: skip


def _events(mesh: DemoMesh, name: str) -> list[dict[str, Any]]:
    lines = (mesh.home / "cp" / "audit.jsonl").read_text().splitlines()
    return [event for line in lines if (event := json.loads(line))["event"] == name]


def _changes(mesh: DemoMesh) -> list[str]:
    """What has been stored so far."""
    lines = (mesh.home / "cp" / "audit.jsonl").read_text().splitlines()
    return [line for line in lines if json.loads(line)["event"].startswith("resource")]


def test_a_directory_names_the_file_and_every_file_is_looked_at(mesh: DemoMesh) -> None:
    directory = mesh.home / "wrong"
    directory.mkdir()
    (directory / "a.yaml").write_text("{type: Mesh, name: a, x: 1}")
    (directory / "b.yaml").write_text("{type: Mesh, name: b}")
    (directory / "c.yaml").write_text("type: [")
    refused(run(mesh, "apply", "-f", "wrong"), "wrong/a.yaml is not valid\n* x: unknown", "wrong/c.yaml is not valid\n")
    assert "unicode string" not in run(mesh, "apply", "-f", "wrong").stderr


def test_a_name_leads_nowhere_else(mesh: DemoMesh) -> None:
    run(mesh, "apply", "-f", "-", stdin=MESH_AND_PERMISSION)
    for arguments in (
        ["delete", "mesh", "default/traffic-permissions/allow-all"],
        ["get", "mesh", "default/traffic-permissions/allow-all"],
        ["delete", "traffic-permission", "../traffic-permissions/allow-all"],
        ["get", "dataplane", "x?y"],
        ["inspect", "dataplane", "x#y"],
        ["inspect", "traffic-permission", "a/b"],
    ):
        refused(run(mesh, *arguments), "name: invalid characters")
    refused(run(mesh, "get", "dataplanes", "-m", "a/b"), "name: invalid characters")
    refused(run(mesh, "inspect", "dataplanes", "-m", "a/../b"), "name: ")
    assert run(mesh, "get", "traffic-permission", "allow-all").returncode == 0


def test_errors_of_the_server_name_the_resource(mesh: DemoMesh) -> None:
    run(mesh, "apply", "-f", "-", stdin=MESH_AND_PERMISSION)
    refused(run(mesh, "inspect", "traffic-permission", "nobody"), 'TrafficPermission "nobody" in mesh "default": Could')
    refused(
        run(mesh, "inspect", "dataplane", "x", "-m", "nowhere"),
        'Failed to retrieve Mesh (mesh "nowhere" does not exist; create it first: {type: Mesh, name: nowhere})',
    )


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["generate", "dataplane-token", "--name", "A_b"], "name: invalid characters"),
        (["--config-file", "nowhere", "get", "meshes"], "--config-file nowhere: No such file or directory"),
        (["--config-file", "strange", "get", "meshes"], "strange is no configuration of kumactl: apiServer is an unk"),
        (["config", "control-planes", "add", "--name", "x", "--address", "http://[::1"], "--address http://[::1: has"),
        (["config", "control-planes", "add", "--name", "x", "--address", "http://h:99999"], "from 1 to 65535"),
        (["get", "thing"], "unknown TYPE: thing. Allowed values: "),
        (["get", "mesh"], "which mesh? Give its name"),
        (["delete", "mesh", "nothing"], 'there is no Mesh with name "nothing"'),
        (["apply", "-f", "missing.yaml"], "cannot read missing.yaml: No such file or directory"),
        (["generate", "dataplane-token", "--mesh", "nowhere"], "Signing Key not found"),
        (["generate", "dataplane-token", "--valid-for", "soon"], "* validFor: is invalid"),
        (["--api-timeout", "x", "get", "meshes"], "--api-timeout has to be"),
        (["config", "control-planes", "switch", "--name", "none"], 'there is no Control Plane with name "none"'),
    ],
)
def test_mistakes_on_the_command_line(mesh: DemoMesh, arguments: list[str], complaint: str) -> None:
    (mesh.home / "strange").write_text("apiServer: {http: {port: 1}}")
    refused(run(mesh, *arguments), complaint)


def test_a_control_plane_that_is_down(mesh: DemoMesh, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    config = tmp_path / "config"
    add = ["config", "control-planes", "add", "--name", "down", "--address", f"http://localhost:{port}"]
    done = run(mesh, "--config-file", str(config), *add)
    refused(done, f"cannot reach the control plane at http://localhost:{port}", "without asking it: --skip-check")
    assert "control-planes add" not in done.stderr, "it does not tell to run itself"
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
            [BIN / "kuma-cp", "run"],
            env={**os.environ, **mine, **others},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 1
        assert f"set {variable}" in done.stderr.splitlines()[-1]


def test_every_port_in_use_is_told_in_one_sentence(mesh: DemoMesh, tmp_path: Path) -> None:
    mine = {**mesh.environment, "KUMA_GENERAL_WORK_DIR": str(tmp_path)}
    done = subprocess.run(
        [BIN / "kuma-cp", "run"], env={**os.environ, **mine}, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if not line.startswith("20")]  # but the log's
    assert len(errors) == 5, done.stderr
    assert all(line.startswith("Error: cannot listen on 127.0.0.1:") for line in errors)
    assert all(": Address already in use. Stop the other program, or set KUMA_" in line for line in errors)


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("KUMA_API_SERVER_HTTP_PROT", "1", "sets nothing; did you mean KUMA_API_SERVER_HTTP_PORT?"),
        ("KUMA_API_SERVER_HTTP_PORT", "x", "KUMA_API_SERVER_HTTP_PORT: "),
        ("KUMA_STORE_TYPE", "mysql", "KUMA_STORE_TYPE: "),
        ("KUMA_XDS_DATAPLANE_DEREGISTRATION_DELAY", "10", "dataplaneDeregistrationDelay"),
    ],
)
def test_settings_that_make_no_sense(mesh: DemoMesh, name: str, value: str, complaint: str) -> None:
    done = subprocess.run(
        [BIN / "kuma-cp", "run"],
        env={**os.environ, **mesh.environment, name: value},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
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


@pytest.fixture(scope="module")
def files_for_kuma_dp(mesh: DemoMesh) -> None:
    files = {
        "x.yaml": DATAPLANE, "typo.yaml": DATAPLANE.replace("networking", "networkign"), "token": "not a real one",
        "empty": "", "hangs": "#!/bin/sh\nexec sleep 60\n", "garbage": "\0\1\2",
        "foreign": run(mesh, "generate", "dataplane-token", "--name", "other").stdout,
        "nowhere.yaml": DATAPLANE.replace("default", "nowhere"), "mesh.yaml": "{type: Mesh, name: x, mtls: 1}",
    }  # fmt: skip
    for name, text in files.items():
        mesh.write(name, text).chmod(0o700 if name in ("hangs", "garbage") else 0o600)
    server_certificate.ensure(mesh.home / "other", ("localhost",), datetime.now(UTC))


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
        (
            {"--ca-cert-file": ""},
            "is not trusted: unable to get local issuer certificate. Give its CA with --ca-cert-f",
        ),
        ({"--ca-cert-file": "other/ca.crt"}, "is not the one that --ca-cert-file stands for"),
        ({}, "refuses this proxy: the token is damaged, or no token at all; make a new one with `kumactl generate"),
        ({"--dataplane-token-file": "foreign"}, "x is different than in token: other"),
        ({"--cp-address": "https://localhost:{https}"}, "this is no data plane server; its port is 5678"),
        ({"--cp-address": "https://localhost:{api}"}, "this is no data plane server; its port is 5678"),
        ({"--cp-address": "https://localhost:99999"}, "with a port from 1 to 65535"),
        ({"--cp-address": "https://[::1"}, "--cp-address https://[::1: has to be an https URL"),
        ({"--binary-path": "/"}, "--binary-path /: is not a program that can be run"),
        ({"--binary-path": "hangs"}, "hangs: is no Envoy, or a broken one: it does not say its version within 10"),
        ({"--binary-path": "/bin/echo"}, "/bin/echo: is no Envoy: it does not answer --version as one does"),
        ({"--binary-path": "garbage"}, "garbage: cannot be run: Exec format error"),
        ({"--dataplane-file": "missing.yaml"}, "--dataplane-file missing.yaml: No such file or directory"),
        ({"--dataplane-file": "typo.yaml"}, "networkign: unknown field; did you mean networking?"),
        ({"--dataplane-file": ""}, "say which Dataplane to run for"),
        ({"--dataplane-file": "/dev/null"}, "--dataplane-file /dev/null: is empty"),
        ({"--dataplane-file": "nowhere.yaml"}, 'mesh: mesh "nowhere" does not exist'),
        ({"--dataplane-file": "mesh.yaml"}, "a Dataplane is needed, not a Mesh"),
        ({"--cp-address": "http://localhost:1"}, "has to be an https URL"),
        ({"--binary-path": "token"}, "--binary-path token: is not a program that can be run"),
        ({"--drain-time": "soon"}, "--drain-time has to be"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
@pytest.mark.usefixtures("files_for_kuma_dp")
def test_what_kuma_dp_cannot_work_with(mesh: DemoMesh, change: dict[str, str], complaint: str) -> None:
    change = {name: value.format(api=mesh.ports.api, https=mesh.ports.https) for name, value in change.items()}
    arguments = {
        "--cp-address": f"https://localhost:{mesh.ports.dp}",
        "--dataplane-file": "x.yaml",
        "--dataplane-token-file": "token",
        "--ca-cert-file": "cp/ca.crt",
    } | change
    done = run(mesh, "run", *(f"{name}={value}" for name, value in arguments.items() if value), program="kuma-dp")
    assert done.returncode == 1, done.stderr
    assert complaint in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("field", "remedy"),
    [
        ("networking.inbound[0].port", "is in use; stop the other program, or choose another port"),
        ("networking.outbound[0].port", "is in use; stop the other program, or choose another port"),
        ("networking.admin.port (9901 unless given)", "is in use; stop the other program, or choose another port"),
        ("networking.inbound[0].port", "cannot be listened on, because this machine does not have the address"),
    ],
)
def test_kuma_dp_names_the_field_whose_port_is_taken(mesh: DemoMesh, field: str, remedy: str) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    taken, *others = listener.getsockname()[1], *free_ports(2)
    inbound, outbound, admin = (taken if name in field else others.pop() for name in ("inbound", "outbound", "admin"))
    address = "192.0.2.1" if "address" in remedy else "127.0.0.1"
    mesh.write(
        "taken.yaml",
        f"{{type: Dataplane, mesh: default, name: x, networking: {{address: {address}, admin: {{port: {admin}}}, "
        f"inbound: [{{port: {inbound}, servicePort: 2, tags: {{kuma.io/service: x}}}}], "
        f"outbound: [{{port: {outbound}, tags: {{kuma.io/service: y}}}}]}}}}",
    )
    mesh.write("good", run(mesh, "generate", "dataplane-token", "--name", "x").stdout)
    where = ("--dataplane-file=taken.yaml", "--dataplane-token-file=good", "--ca-cert-file=cp/ca.crt")
    done = run(mesh, "run", f"--cp-address=https://localhost:{mesh.ports.dp}", *where, program="kuma-dp")
    listener.close()
    assert (done.returncode, done.stderr) == (1, f"Error: {field}: {address}:{taken} {remedy}\n")


def test_kuma_dp_waits_for_a_control_plane_that_is_down(mesh: DemoMesh) -> None:
    (port,) = free_ports(1)
    for name, text in {"x.yaml": DATAPLANE, "token": "t"}.items():
        mesh.write(name, text)
    process = subprocess.Popen(
        [BIN / "kuma-dp", "run", f"--cp-address=https://localhost:{port}", "--dataplane-file=x.yaml",
         "--dataplane-token-file=token", "--ca-cert-file=cp/ca.crt", "--readiness-port=0"],
        cwd=mesh.home, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    line = process.stderr.readline()
    process.terminate()
    process.communicate(timeout=PATIENCE)
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
    refused(planes(mesh, "john", *secure, "--auth-conf", f"token={token}"), "is not trusted", "--ca-cert-file")
    clear = ("--address", f"http://localhost:{mesh.ports.https}")
    refused(planes(mesh, "john", *clear), "does not speak HTTP in the clear", "an https address is needed")
    refused(
        planes(mesh, "john", "--address", f"https://localhost:{mesh.ports.api}"), "does not speak TLS; an http address"
    )
    assert planes(mesh, "john", *secure, *ca, "--auth-conf", f"token={token}").returncode == 0
    as_john = ("--config-file", "john")
    assert "default" in run(mesh, *as_john, "get", "meshes").stdout
    refused(
        run(mesh, *as_john, "get", "secrets"),
        'Access Denied (user "john/team-a,mesh-system:authenticated" cannot access the resource of type "Secret")',
    )
    assert token not in run(mesh, *as_john, "config", "view").stdout
    assert oct((mesh.home / "john").stat().st_mode)[-3:] == "600"


def test_whoever_makes_a_token_for_everything_is_told(mesh: DemoMesh) -> None:
    done = run(mesh, "generate", "dataplane-token")
    assert done.stdout.count(".") == 2
    assert done.stderr == ('Warning: without --name and --tag the token holds for every Dataplane of mesh "default"\n')
    assert run(mesh, "generate", "dataplane-token", "--name", "x").stderr == ""


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


ENVOY_ADMIN_CA = "envoy-admin-ca"


TARGETING = (
    "{type: MeshTrafficPermission, mesh: default, name: all, spec: {targetRef: {kind: Mesh}, "
    "from: [{targetRef: {kind: Mesh}, default: {action: Allow}}]}}"
)
WEB_09 = (
    "{type: Dataplane, mesh: default, name: web-09, networking: {address: 10.0.0.1, "
    "inbound: [{port: 80, servicePort: 8080, tags: {kuma.io/service: web}}]}}"
)


def test_everything_can_be_exported_and_applied_to_another_control_plane(mesh: DemoMesh, tmp_path: Path) -> None:
    run(mesh, "apply", "-f", "-", stdin=MESH_AND_PERMISSION)
    ca = cas.root(tmp_path, "inline")
    conf = {"cert": {"inlineString": ca.cert}, "key": {"inlineString": ca.key}}  # masked wherever it is only shown
    mtls = {"backends": [{"name": "own", "type": "provided", "conf": conf}]}
    run(mesh, "apply", "-f", "-", stdin=json.dumps({"type": "Mesh", "name": "inline", "mtls": mtls}))
    assert "PRIVATE KEY" not in run(mesh, "get", "mesh", "inline", "-o", "yaml").stdout
    run(mesh, "apply", "-f", "-", stdin=TARGETING + "\n---\n" + WEB_09)
    run(mesh, "apply", "-f", "-", stdin=SECRETS_OF_SECOND + "\n---\n" + secrets(cas.root(tmp_path, "second")))
    done = run(mesh, "export")
    assert done.returncode == 0, done.stderr
    assert ENVOY_ADMIN_CA not in done.stdout
    (mesh.home / "export.yaml").write_text(done.stdout)
    before = _changes(mesh)
    again = run(mesh, "apply", "-f", "export.yaml")
    assert again.returncode == 0, again.stderr
    assert _changes(mesh) == before, "nothing is stored, not even for an instant"
    with Processes(tmp_path) as processes:
        other = DemoMesh(tmp_path, processes)
        other.start_control_plane()
        address = f"http://localhost:{other.ports.api}"
        other.kumactl("config", "control-planes", "add", "--name", "other", "--address", address, "--overwrite")
        applied = run(other, "apply", "-f", str(mesh.home / "export.yaml"))
        assert applied.returncode == 0, applied.stderr
        for arguments in (("meshes",), ("secrets",), ("traffic-permissions",), ("global-secrets",),
                          ("dataplanes",), ("meshtrafficpermissions",), ("secrets", "-m", "second")):  # fmt: skip
            assert _content(other, *arguments) == _content(mesh, *arguments)
    run(mesh, "delete", "mesh", "second")


def test_exports_of_less(mesh: DemoMesh) -> None:
    run(mesh, "apply", "-f", "-", stdin="\n---\n".join((MESH_AND_PERMISSION, TARGETING, WEB_09)))
    left_out = {
        "all": set(), "no-dataplanes": {"Dataplane"}, "federation-with-policies": {"Dataplane"},
        "federation": {"Dataplane", "MeshTrafficPermission"},
    }  # fmt: skip
    found = {
        profile: {item["type"] for item in yaml.safe_load_all(run(mesh, "export", "--profile", profile).stdout)}
        for profile in left_out
    }
    assert {profile: found["all"] - kinds for profile, kinds in found.items()} == left_out
    run(mesh, "delete", "meshtrafficpermission", "all")
    run(mesh, "delete", "dataplane", "web-09")


def _content(mesh: DemoMesh, *arguments: str) -> list[dict[str, object]]:
    items = json.loads(run(mesh, "get", *arguments, "-o", "json").stdout)["items"]
    shown = (item for item in items if item["name"] != ENVOY_ADMIN_CA)
    return [{k: v for k, v in item.items() if not k.endswith("Time")} for item in shown]


def test_a_backup_of_a_control_plane_that_runs(mesh: DemoMesh) -> None:
    run(mesh, "apply", "-f", "-", stdin=MESH_AND_PERMISSION)
    done = run(mesh, "backup", "copy.db", program="kuma-cp")
    assert done.returncode == 0, done.stderr
    assert (mesh.home / "copy.db").stat().st_mode & 0o777 == 0o600
    refused(run(mesh, "backup", "copy.db", program="kuma-cp"), "give the backup another name")
    refused(run(mesh, "restore", "copy.db", program="kuma-cp"), "another control plane uses")


def test_inspection_of_what_has_no_proxy(mesh: DemoMesh) -> None:
    run(mesh, "apply", "-f", "-", stdin=MESH_AND_PERMISSION)
    run(mesh, "apply", "-f", "-", stdin=WEB_09)
    shown = run(mesh, "inspect", "dataplane", "web-09").stdout
    assert shown.splitlines() == ["INBOUND 10.0.0.1:80:8080(web):", "  TrafficPermission", "    allow-all"]
    assert "envoy.config.listener.v3.Listener" in run(mesh, "inspect", "dataplane", "web-09", "--type", "config").stdout
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
            [BIN / "kuma-cp", "migrate", "up"], env=environment, capture_output=True, text=True, timeout=PATIENCE
        )
        assert (done.returncode, done.stdout.strip()) == (0, f"{tmp_path / 'kuma.db'} is up to date")
    refused(run(mesh, "migrate", "up", program="kuma-cp"), "another control plane uses")


MIXED = """\
{apiVersion: v1, kind: Namespace, metadata: {name: demo}}
---
{type: Mesh, name: mixed, tracing: {defaultBackend: z, backends: [{name: z, type: zipkin}]}}
---
{type: MeshTimeout, mesh: mixed, name: t, spec: {targetRef: {kind: Mesh}, to: [{default: {idleTimeout: 20s}}]}}
---
{type: Zone, name: east, enabled: true}
"""


def test_parts_of_a_file_that_have_no_effect_do_not_stop_the_rest(mesh: DemoMesh) -> None:
    (mesh.home / "mixed.yaml").write_text(MIXED)
    refused(
        run(mesh, "apply", "-f", "mixed.yaml", "--strict"),
        "v1 Namespace belongs to Kubernetes; use kubectl for it",
        "Zone is not implemented here: there is one zone",
    )
    assert run(mesh, "get", "mesh", "mixed").returncode == 1
    done = run(mesh, "apply", "-f", "mixed.yaml")
    assert done.returncode == 0
    assert done.stdout.splitlines() == ['Mesh "mixed" created', 'MeshTimeout "t" in mesh "mixed" created']
    for warning in (
        'mixed.yaml: left out: document 1 (Namespace "demo"): apiVersion: v1 Namespace belongs to Kubernetes',
        'mixed.yaml: left out: document 4 (Zone "east"): type: Zone is not implemented here: there is one zone',
        "tracing.backends: is stored and given back, and has no effect here: proxies send no traces",
        "MeshTimeout is stored and given back, and has no effect here: Envoy's own limits and timeouts hold",
    ):
        assert f"Warning: {warning}" in done.stderr
    shown = run(mesh, "get", "meshtimeout", "t", "-m", "mixed", "-o", "yaml").stdout
    assert yaml.safe_load(shown)["spec"] == {"targetRef": {"kind": "Mesh"}, "to": [{"default": {"idleTimeout": "20s"}}]}
    refused(
        run(mesh, "apply", "--strict", "-f", "-", stdin=MIXED.split("---")[1]), "tracing.backends", "no effect here"
    )
    nothing = run(mesh, "apply", "-f", "-", stdin=MIXED.split("---")[0])
    assert nothing.returncode == 1
    assert nothing.stderr.endswith("Error: there is no resource in standard input\n")
    assert run(mesh, "delete", "mesh", "mixed").returncode == 0


def test_what_hands_are_used_to(mesh: DemoMesh) -> None:
    """Short names, several names, `all`, `-h`, `--version`, and a hint for a slip."""
    assert run(mesh, "--version").stdout.startswith("Client: Kuma ")
    for program in ("kumactl", "kuma-cp", "kuma-dp"):
        assert run(mesh, "-h", program=program).stdout == run(mesh, "--help", program=program).stdout
    assert run(mesh, "get", "-h").returncode == 0
    for name in ("hand-1", "hand-2"):
        document = f"{{type: Mesh, name: {name}, networking: {{outbound: {{passthrough: true}}}}}}"
        assert run(mesh, "apply", "-f", "-", stdin=document).returncode == 0
    both = yaml.safe_load(run(mesh, "get", "mesh", "hand-1", "hand-2", "-o", "yaml").stdout)
    assert [item["name"] for item in both["items"]] == ["hand-1", "hand-2"]
    dataplane = DATAPLANE.replace("mesh: default, name: x", "mesh: hand-1, name: hand")
    assert run(mesh, "apply", "-f", "-", stdin=dataplane).returncode == 0
    assert "hand" in run(mesh, "get", "dp", "hand", "-m", "hand-1").stdout
    everything = run(mesh, "get", "all", "-m", "hand-1").stdout
    assert everything.startswith("Mesh\nNAME")
    assert "\n\nDataplane\nMESH" in everything
    assert "TrafficPermission" not in everything  # there is none, so there is no table
    refused(run(mesh, "get", "meshs"), "unknown TYPE: meshs; did you mean meshes?")
    refused(run(mesh, "get", "mesh", "hand-1", "nope"), 'there is no Mesh "nope"')
    assert run(mesh, "delete", "dp", "hand", "-m", "hand-1").returncode == 0
    done = run(mesh, "delete", "mesh", "hand-1", "hand-2")
    assert done.stdout.splitlines() == ['deleted Mesh "hand-1"', 'deleted Mesh "hand-2"']


def test_a_secret_is_created_from_a_file(mesh: DemoMesh) -> None:
    (mesh.home / "ca.pem").write_bytes(b"some bytes\n")
    done = run(mesh, "create", "secret", "made", "--from-file", "ca.pem")
    assert done.stdout == 'Secret "made" in mesh "default" created\n'
    shown = yaml.safe_load(run(mesh, "get", "secret", "made", "-o", "yaml").stdout)
    assert base64.b64decode(shown["data"]) == b"some bytes\n"
    assert run(mesh, "create", "secret", "made", "--from-file", "ca.pem", "--global").returncode == 0
    refused(run(mesh, "create", "secret", "made", "--from-file", "missing"), "--from-file missing: No such file")
    assert run(mesh, "delete", "secret", "made").returncode == 0
    assert run(mesh, "delete", "globalsecret", "made").returncode == 0
