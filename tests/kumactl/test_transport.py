"""How kumactl reaches a control plane: what it asks first, what it warns of, and whom it believes."""

import asyncio
import contextlib
import os
import ssl
import subprocess
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.x509.oid import NameOID

import kuma
from demo.processes import BIN, free_ports
from kuma.kumactl.connection import transport, version_check
from kuma.kumactl.connection.config_file import ApiServer, Header
from kuma.pki import own_ca
from kuma.pki.x509 import certificate_pem
from tests.fakes import cas
from tests.fakes.control_plane import running
from tests.fakes.patience import PATIENCE
from tests.kumactl.fake_server import Answers, serving

KUMA = {"product": "Kuma", "tagline": "Kuma", "version": f"{kuma.__version__}-preview"}
EMPTY = {"total": 0, "items": [], "next": None}


def kumactl(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HOME": str(home), "NO_COLOR": "1"}
    command = [str(BIN / "kumactl"), *arguments]
    return subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, timeout=PATIENCE)


def add(home: Path, address: str, *more: str) -> subprocess.CompletedProcess[str]:
    common = ("config", "control-planes", "add", "--name", "p", "--overwrite", "--address", address)
    return kumactl(home, *common, *more)


def answers(index: Any) -> Answers:
    return {"/": index, "/meshes": (200, EMPTY), "/who-am-i": (200, {"name": "x", "groups": []})}


MISMATCH = f"WARNING: You are using kumactl version {kuma.__version__} for Kuma, but the server returned version: "


@pytest.mark.parametrize(
    ("index", "said"),
    [
        (KUMA, ""),
        ({"tagline": "Kuma", "version": kuma.__version__}, ""),
        ({"product": "Kuma", "version": "2.7.19"}, f"{MISMATCH}Kuma 2.7.19"),
        ({"product": "Kong Mesh", "version": kuma.__version__}, f"{MISMATCH}Kong Mesh {kuma.__version__}"),
        ({"product": "Kong Mesh", "version": "1-preview"}, f"{MISMATCH}Kong Mesh 1-preview"),
        ([], "WARNING: Unable to confirm the server supports this kumactl version"),
    ],
)
def test_what_is_said_of_a_server(index: Any, said: str) -> None:
    assert version_check.warning(index) == said


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ((200, KUMA), ""),
        ((200, {"product": "Kuma", "version": "9.9.9"}), f"{MISMATCH}Kuma 9.9.9\n"),
        ((500, "oops"), "WARNING: Unable to confirm the server supports this kumactl version\n"),
        ((200, "no JSON"), "WARNING: Unable to confirm the server supports this kumactl version\n"),
    ],
)
def test_commands_warn_and_go_on(tmp_path: Path, index: Any, said: str) -> None:
    with serving(answers(index)) as server:
        assert add(tmp_path, f"http://localhost:{server.port}", "--skip-check").returncode == 0
        done = kumactl(tmp_path, "get", "meshes")
    assert (done.returncode, done.stderr) == (0, said)
    assert done.stdout.startswith("NAME")
    assert [path.partition("?")[0] for path, _ in server.asked] == ["/", "/meshes"]


OFFLINE = [
    ("generate", "signing-key"),
    ("generate", "tls-certificate", "--type", "client", "--cert-file", "-", "--key-file", "-"),
    ("completion", "bash"),
    ("config", "view"),
    ("config", "control-planes", "list"),
]


def test_what_needs_no_control_plane_asks_none(tmp_path: Path) -> None:
    with serving(answers((200, {"product": "Other"}))) as server:
        add(tmp_path, f"http://localhost:{server.port}", "--skip-check")
        for command in OFFLINE:
            done = kumactl(tmp_path, *command)
            assert (done.returncode, done.stderr) == (0, ""), command
    assert server.asked == []


def test_a_control_plane_is_asked_who_it_is_before_it_is_shown_a_token(tmp_path: Path) -> None:
    tokens = ("--auth-type", "tokens", "--auth-conf", "token=secret", "--headers", "x-team=blue")
    with serving(answers((200, KUMA))) as server:
        assert add(tmp_path, f"http://localhost:{server.port}", *tokens).returncode == 0
    (index, first), (who, second) = server.asked
    assert (index, "authorization" in first, first["x-team"]) == ("/", False, "blue")
    assert (who, second["authorization"]) == ("/who-am-i", "Bearer secret")
    with serving(answers((200, {"product": "Other"}))) as server:
        done = add(tmp_path, f"http://localhost:{server.port}", *tokens)
    assert "is no control plane of Kuma" in done.stderr
    assert not any("authorization" in headers for _, headers in server.asked)


PAGE = "<!DOCTYPE html><h1>Not here</h1>"


def test_what_is_no_control_plane_is_called_that(tmp_path: Path) -> None:
    with serving({"/bad/": (502, "upstream is down"), "/broken/": (503, PAGE)}) as server:
        address = f"http://localhost:{server.port}"
        stranger = f"what answers at {address} is no control plane of Kuma. Correct --address"
        assert stranger in add(tmp_path, address).stderr
        add(tmp_path, address, "--skip-check")
        for command in ("get meshes", "get mesh default", "inspect dataplane x", "export"):
            done = kumactl(tmp_path, *command.split())
            assert done.returncode == 1
            assert f"what answers at {address} has no /mesh" in done.stderr, command
        (tmp_path / "x.yaml").write_text("{type: Secret, mesh: default, name: x, data: eA==}")
        done = kumactl(tmp_path, "apply", "-f", "x.yaml")
        assert "create it first" not in done.stderr, "a stranger's 404 says nothing of meshes"
        for path, said in (("bad", "502 Bad Gateway: upstream is down"), ("broken", "503 Service Unavailable")):
            assert add(tmp_path, f"{address}/{path}").stderr == f"Error: {said}\n"


def test_what_is_wrong_with_the_choice_of_a_control_plane(tmp_path: Path) -> None:
    assert "--name: cannot be empty" in add(tmp_path, "http://localhost:1", "--skip-check", "--name", "").stderr
    add(tmp_path, "http://localhost:1", "--skip-check")
    (tmp_path / "ca.crt").write_text("no certificate")
    done = add(tmp_path, "https://localhost:1", "--skip-check", "--ca-cert-file", "ca.crt")
    assert done.stderr == f"Error: --ca-cert-file: cannot use {tmp_path / 'ca.crt'}: it holds no certificate in PEM\n"
    kumactl(tmp_path, "config", "control-planes", "remove", "--name", "p")
    assert "control-planes switch --name NAME" in kumactl(tmp_path, "get", "meshes").stderr


TOKEN = "the token is sent to cp.example in the clear"
ANYTHING = "requests and answers travel to cp.example in the clear"


@pytest.mark.parametrize(
    ("server", "said"),
    [
        (ApiServer(url="http://cp.example:5681"), ANYTHING),
        (ApiServer(url="http://cp.example:5681", auth_type="tokens", auth_conf={"token": "x"}), TOKEN),
        (ApiServer(url="http://cp.example", headers=(Header(key="AUTHORIZATION", value="Bearer x"),)), TOKEN),
        (ApiServer(url="https://cp.example:5682", skip_verify=True), "whoever answers at cp.example is believed"),
        (ApiServer(url="https://cp.example:5682"), ""),
        (ApiServer(url="http://localhost:5681"), ""),
        (ApiServer(url="http://127.0.0.2:5681"), ""),
        (ApiServer(url="http://127.0.0.1.example:5681"), "travel to 127.0.0.1.example in the clear"),
        (ApiServer(url="http://[::1]:5681"), ""),
    ],
)
def test_what_others_could_read_is_warned_of(server: ApiServer, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    transport.warn(server)
    assert (said in capsys.readouterr().err) if said else not capsys.readouterr().err


def test_it_is_warned_of_when_a_control_plane_is_added(tmp_path: Path) -> None:
    assert ANYTHING in add(tmp_path, "http://cp.example:5681", "--skip-check").stderr


@pytest.fixture
def tls(tmp_path: Path) -> Mapping[str, str]:
    """Certificates as `kumactl generate tls-certificate` makes them."""
    files = {}
    for kind in ("server", "client"):
        files[f"{kind}.crt"], files[f"{kind}.key"] = str(tmp_path / f"{kind}.crt"), str(tmp_path / f"{kind}.key")
        done = kumactl(
            tmp_path, "generate", "tls-certificate", "--type", kind, "--hostname", "localhost,127.0.0.1",
            "--key-type", "ecdsa", "--cert-file", files[f"{kind}.crt"], "--key-file", files[f"{kind}.key"],
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    return files


def test_a_certificate_of_the_client(tmp_path: Path, tls: Mapping[str, str]) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls["server.crt"], tls["server.key"])
    context.load_verify_locations(tls["client.crt"])
    context.verify_mode = ssl.CERT_REQUIRED
    mine = ("--client-cert-file", tls["client.crt"], "--client-key-file", tls["client.key"])
    with serving(answers((200, KUMA)), context) as server:
        address = f"https://localhost:{server.port}"
        unknown = add(tmp_path, address, "--ca-cert-file", tls["server.crt"])
        assert (unknown.returncode, "wants a client certificate" in unknown.stderr) == (1, True), unknown.stderr
        others = ("--client-cert-file", tls["server.crt"], "--client-key-file", tls["server.key"])
        foreign = add(tmp_path, address, "--ca-cert-file", tls["server.crt"], *others)
        assert (foreign.returncode, "does not go on with the client" in foreign.stderr) == (1, True), foreign.stderr
        assert add(tmp_path, address, "--ca-cert-file", tls["server.crt"], *mine).returncode == 0
        assert kumactl(tmp_path, "get", "meshes").returncode == 0
        refused = add(tmp_path, address, *mine)
        assert (refused.returncode, "certificate" in refused.stderr) == (1, True)
        believed = add(tmp_path, address, *mine, "--skip-verify")
        assert (believed.returncode, "is believed (skipVerify)" in believed.stderr) == (0, True)
    kept = yaml.safe_load((tmp_path / ".kumactl" / "config").read_text())
    assert kept["controlPlanes"][-1]["coordinates"]["apiServer"] == {
        "url": address, "clientCertFile": tls["client.crt"], "clientKeyFile": tls["client.key"], "skipVerify": True,
    }  # fmt: skip


def test_certificates_that_cannot_be_used(tmp_path: Path, tls: Mapping[str, str]) -> None:
    for more, complaint in (
        (("--client-cert-file", tls["client.crt"]), "are given together or not at all"),
        (("--client-cert-file", "x", "--client-key-file", "y"), "--client-cert-file: cannot read"),
        (("--client-cert-file", tls["client.crt"], "--client-key-file", "y"), "--client-key-file: cannot read"),
        (("--client-cert-file", tls["client.key"], "--client-key-file", tls["client.key"]), "a certificate in PEM"),
        (("--client-cert-file", tls["client.crt"], "--client-key-file", tls["server.key"]), "do not belong together"),
        (("--ca-cert-file", tls["client.key"]), "it holds no certificate in PEM"),
        (("--ca-cert-file", "nowhere"), "No such file or directory"),
    ):
        done = add(tmp_path, "https://localhost:1", *more, "--skip-check")
        assert (done.returncode, complaint in done.stderr) == (1, True), done.stderr


def test_a_key_that_others_can_read_is_not_used(tmp_path: Path, tls: Mapping[str, str]) -> None:
    Path(tls["client.key"]).chmod(0o440)
    mine = ("--client-cert-file", tls["client.crt"], "--client-key-file", tls["client.key"])
    done = add(tmp_path, "https://localhost:1", *mine, "--skip-check")
    remedy = f"others can read the key in {tls['client.key']}. Run: chmod go= {tls['client.key']}"
    assert (done.returncode, done.stderr) == (1, f"Error: --client-key-file: {remedy}\n")


def test_a_key_in_one_file_with_its_certificate_is_not_used_either(tmp_path: Path, tls: Mapping[str, str]) -> None:
    both = tmp_path / "both.pem"
    both.write_text(Path(tls["client.crt"]).read_text() + Path(tls["client.key"]).read_text())
    both.chmod(0o644)
    mine = ("--client-cert-file", str(both), "--client-key-file", str(both))
    done = add(tmp_path, "https://localhost:1", *mine, "--skip-check")
    assert (done.returncode, f"others can read the key in {both}" in done.stderr) == (1, True), done.stderr


def test_an_encrypted_key_is_not_asked_for(tmp_path: Path, tls: Mapping[str, str]) -> None:
    cas.openssl(tmp_path, "ec", "-in", tls["client.key"], "-aes256", "-passout", "pass:x", "-out", "sealed.key")
    mine = ("--client-cert-file", tls["client.crt"], "--client-key-file", str(tmp_path / "sealed.key"))
    done = add(tmp_path, "https://localhost:1", *mine, "--skip-check")
    assert (done.returncode, "the key is encrypted" in done.stderr) == (1, True), done.stderr


def test_a_certificate_that_has_ended_is_told_of_here(tmp_path: Path, tls: Mapping[str, str]) -> None:
    old, name = tmp_path / "old.crt", x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "client")])
    made = own_ca.new_ca(name, datetime(2026, 1, 1, tzinfo=UTC), timedelta(days=1))
    old.write_bytes(certificate_pem(made.certificate))
    mine = ("--client-cert-file", str(old), "--client-key-file", tls["client.key"])
    done = add(tmp_path, "https://localhost:1", *mine, "--skip-check")
    said = f"the certificate in {old} has ended at 2026-01-02 00:00 UTC"
    assert (done.returncode, said in done.stderr) == (1, True), done.stderr


@contextlib.asynccontextmanager
async def wanting(tmp_path: Path, known: str) -> AsyncIterator[str]:
    """The address of a control plane of ours that wants a certificate of one client."""
    https = {"port": 0, "tls_ca_file": known, "require_client_cert": True}
    async with running(tmp_path / "cp", api_server={"http": {"port": 0}, "https": https}) as cp:
        yield f"https://localhost:{await cp.parts.api['API server, HTTPS'].port()}"


async def test_a_control_plane_that_wants_a_certificate(tmp_path: Path, tls: Mapping[str, str]) -> None:
    mine = ("--client-cert-file", tls["client.crt"], "--client-key-file", tls["client.key"])
    others = ("--client-cert-file", tls["server.crt"], "--client-key-file", tls["server.key"])
    async with wanting(tmp_path, tls["client.crt"]) as address:
        common = ("--ca-cert-file", str(tmp_path / "cp" / "ca.crt"))
        none = await asyncio.to_thread(add, tmp_path, address, *common)
        assert (none.returncode, "a client certificate is required here" in none.stderr) == (1, True), none.stderr
        foreign = await asyncio.to_thread(add, tmp_path, address, *common, *others)
        said = f"does not go on with the client certificate in {tls['server.crt']}"
        assert (foreign.returncode, said in foreign.stderr) == (1, True), foreign.stderr
        added = await asyncio.to_thread(add, tmp_path, address, *common, *mine)
        assert added.returncode == 0, added.stderr
        done = await asyncio.to_thread(kumactl, tmp_path, "get", "meshes")
        assert (done.returncode, done.stderr, "default" in done.stdout) == (0, "", True)


def test_requests_are_told_if_wanted_without_what_they_carry(tmp_path: Path) -> None:
    with serving(answers((200, KUMA))) as server:
        add(tmp_path, f"http://localhost:{server.port}", "--auth-type", "tokens", "--auth-conf", "token=hunter2")
        for level in ("info", "debug"):
            told = kumactl(tmp_path, "--log-level", level, "get", "meshes").stderr
            assert f"GET http://localhost:{server.port}/meshes" in told
            assert "hunter2" not in told
        assert kumactl(tmp_path, "get", "meshes").stderr == ""


def test_a_configuration_that_cannot_be_read_is_not_quoted(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("controlPlanes: [{authConf: {token: hunter2\ncurrentContext: x")
    done = kumactl(tmp_path, "--config-file", "config", "get", "meshes")
    assert (done.returncode, "is not valid YAML" in done.stderr, "hunter2" in done.stderr) == (1, True, False)


def test_a_control_plane_that_is_down_is_told_of_once(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    add(tmp_path, f"http://localhost:{port}", "--skip-check")
    done = kumactl(tmp_path, "get", "meshes")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("Error: cannot reach the control plane")
