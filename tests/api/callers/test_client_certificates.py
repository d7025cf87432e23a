"""Client certificates for the API over HTTPS, over real TLS."""

import contextlib
import json
import ssl
import subprocess
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from demo.processes import BIN
from kuma.app.configuration import settings_file
from kuma.app.serving import client_cas
from kuma.base.errors import Misconfigured
from kuma.base.tls.trust import NOBODY
from kuma.pki import own_ca
from kuma.pki.x509 import CaPair, certificate_pem, key_pem
from tests.fakes.clock import ManualClock
from tests.fakes.control_plane import Running, running
from tests.fakes.patience import PATIENCE

DAY = timedelta(days=1)


class Pki:
    """A CA whose clients are known, another one, and files of certificates."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.now = datetime.now(UTC)
        self.known, self.foreign = (own_ca.new_ca(_name(name), self.now, 9 * DAY) for name in ("known", "foreign"))
        self.file = directory / "clients.pem"
        self.file.write_bytes(certificate_pem(self.known.certificate))

    def client(self, name: str, ca: CaPair, days: int = 1, purpose: x509.ObjectIdentifier | None = None) -> Path:
        """A file with a client's certificate and key; for `days` below 0, one that has ended."""
        begin = self.now + min(0, days - 1) * DAY
        use = purpose or ExtendedKeyUsageOID.CLIENT_AUTH
        issued = own_ca.issue(ca, _name(name), own_ca.names(["client.example"]), use, begin, self.now + days * DAY)
        file = self.directory / f"{name}.pem"
        file.write_bytes(certificate_pem(issued.certificate) + key_pem(issued.key))
        return file


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(tmp_path)


@contextlib.asynccontextmanager
async def asking(
    tmp_path: Path, *, required: bool = False, file: Path | None = None, directory: Path | None = None
) -> AsyncIterator[Running]:
    api = {
        "http": {"port": 0},
        "https": {"port": 0, "tls_ca_file": file, "require_client_cert": required},
        "auth": {"client_certs_dir": directory},
    }
    async with running(tmp_path / "cp", api_server=api) as found:
        yield found


async def get(
    cp: Running, path: str, client: Path | None = None, token: str = "", newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
) -> httpx.Response:
    tls = ssl.create_default_context(cadata=cp.ca_pem.decode())
    tls.maximum_version = newest
    if client is not None:
        tls.load_cert_chain(client)
    headers = {"authorization": f"Bearer {token}"} if token else {}
    port = await cp.parts.api["API server, HTTPS"].port()
    async with httpx.AsyncClient(verify=tls, trust_env=False, timeout=PATIENCE) as http:
        return await http.get(f"https://localhost:{port}{path}", headers=headers)


async def refused(cp: Running, client: Path, newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> None:
    with pytest.raises((httpx.ConnectError, httpx.ReadError, httpx.RemoteProtocolError, ssl.SSLError)):
        await get(cp, "/meshes", client, newest=newest)


def refusals(tmp_path: Path) -> list[Any]:
    lines = [json.loads(line) for line in (tmp_path / "cp" / "audit.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == "refused"]


async def test_certificates_are_optional_unless_required(tmp_path: Path, pki: Pki) -> None:
    async with asking(tmp_path, file=pki.file) as cp:
        for client in (None, pki.client("c", pki.known)):
            assert (await get(cp, "/meshes", client)).status_code == 200


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_certificate_that_does_not_hold_is_refused_by_tls(
    tmp_path: Path, pki: Pki, version: ssl.TLSVersion
) -> None:
    async with asking(tmp_path, file=pki.file) as cp:
        await refused(cp, pki.client("f", pki.foreign), version)
        await refused(cp, pki.client("x", pki.known, days=-1), version)
        await refused(cp, pki.client("s", pki.known, purpose=ExtendedKeyUsageOID.SERVER_AUTH), version)
        assert (await get(cp, "/meshes", pki.client("c", pki.known), newest=version)).status_code == 200
    found = refusals(tmp_path)
    assert [(line["server"], line["address"]) for line in found] == [("API server, HTTPS", "127.0.0.1")] * 3
    assert ["unable to get local issuer" in found[0]["reason"], "expired" in found[1]["reason"]] == [True, True]
    assert "purpose" in found[2]["reason"]


async def test_without_a_certificate_there_is_nothing_if_one_is_required(tmp_path: Path, pki: Pki) -> None:
    async with asking(tmp_path, file=pki.file, required=True) as cp:
        for path in ("/", "/meshes", "/nowhere"):
            answer = await get(cp, path)
            assert (answer.status_code, answer.json()["title"]) == (401, "Invalid authentication data")
            assert "--client-cert-file" in answer.json()["detail"]
        await refused(cp, pki.client("f", pki.foreign))
        assert (await get(cp, "/meshes", pki.client("c", pki.known))).status_code == 200
        port = await cp.parts.api["API server"].port()
        async with httpx.AsyncClient(verify=NOBODY, timeout=PATIENCE) as http:  # in the clear, on this machine only
            assert (await http.get(f"http://127.0.0.1:{port}/meshes")).status_code == 200
    assert "a client certificate is required" in refusals(tmp_path)[0]["reason"]


async def test_a_certificate_that_ends_while_it_is_used(tmp_path: Path, pki: Pki) -> None:
    """On a connection that is kept, and in a session that TLS resumes, nobody verifies it again."""
    clock = ManualClock(pki.now)
    api = {"http": {"port": 0}, "https": {"port": 0, "tls_ca_file": pki.file}}
    async with running(tmp_path / "cp", clock, api_server=api) as cp:
        tls = ssl.create_default_context(cadata=cp.ca_pem.decode())
        tls.load_cert_chain(pki.client("c", pki.known))
        base = f"https://localhost:{await cp.parts.api['API server, HTTPS'].port()}"
        async with httpx.AsyncClient(verify=tls, trust_env=False, base_url=base, timeout=PATIENCE) as http:
            assert (await http.get("/meshes")).status_code == 200
            clock.advance((2 * DAY).total_seconds())
            answer = await http.get("/meshes")
            assert (answer.status_code, answer.json()["detail"]) == (401, "the client certificate has ended")


async def test_a_certificate_says_nothing_of_who_calls(tmp_path: Path, pki: Pki) -> None:
    client = pki.client("mesh-system:admin", pki.known)
    async with asking(tmp_path, file=pki.file, required=True) as cp:
        token = await cp.parts.users.issue("jane", ["team-a"], DAY)
        named = await get(cp, "/who-am-i", client, token)
        assert named.json() == {"name": "jane", "groups": ["team-a", "mesh-system:authenticated"]}
        assert (await get(cp, "/secrets", client, token)).status_code == 403
        assert (await get(cp, "/meshes", client, "nonsense")).status_code == 401
    api = {
        "http": {"port": 0},
        "https": {"port": 0, "tls_ca_file": pki.file, "require_client_cert": True},
        "authn": {"localhost_is_admin": False},
    }
    async with running(tmp_path / "cp2", api_server=api) as cp:
        assert (await get(cp, "/who-am-i", client)).json()["name"] == "mesh-system:anonymous"
        assert (await get(cp, "/meshes", client)).status_code == 403


async def test_a_directory_of_certificates_of_clients_and_cas(tmp_path: Path, pki: Pki) -> None:
    listed = tmp_path / "listed"
    listed.mkdir()
    (listed / "ca.crt").write_bytes(certificate_pem(pki.known.certificate))
    one, other = pki.client("one", pki.foreign), pki.client("other", pki.foreign)
    (listed / "one.pem").write_bytes(one.read_bytes())  # with its key, which is of no use here
    (listed / "README").write_text("no certificate")
    async with asking(tmp_path, directory=listed, required=True) as cp:
        for client in (one, pki.client("c", pki.known)):
            assert (await get(cp, "/meshes", client)).status_code == 200
        await refused(cp, other)
    assert "PRIVATE KEY" not in client_cas.read(None, listed)


def test_files_that_nobody_can_be_verified_by_are_refused_by_the_name_of_the_setting(tmp_path: Path, pki: Pki) -> None:
    nonsense, empty = tmp_path / "nonsense.pem", tmp_path / "empty"
    nonsense.write_text("nonsense")
    empty.mkdir()
    for places, complaint in (
        ({"file": tmp_path / "gone"}, "apiServer.https.tlsCaFile: cannot read .*gone: No such file"),
        ({"file": empty}, "apiServer.https.tlsCaFile: cannot read .*empty: Is a directory"),
        ({"file": nonsense}, "apiServer.https.tlsCaFile: .*nonsense.pem has to hold certificates in PEM"),
        ({"directory": tmp_path / "gone"}, "apiServer.auth.clientCertsDir: cannot read .*gone: No such file"),
        ({"directory": empty}, "apiServer.auth.clientCertsDir: .*empty has no file that ends in .pem or .crt"),
        ({"directory": tmp_path}, "apiServer.auth.clientCertsDir: .*nonsense.pem has to hold certificates in PEM"),
    ):
        with pytest.raises(Misconfigured, match=complaint):
            client_cas.read(places.get("file"), places.get("directory"))


def test_a_control_plane_does_not_start_without_the_file_that_it_is_told_of(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path), "NO_COLOR": "1", "KUMA_API_SERVER_HTTPS_TLS_CA_FILE": "nowhere.pem"}
    done = subprocess.run([BIN / "kuma-cp", "run"], env=environment, capture_output=True, text=True, timeout=PATIENCE)
    said = "Error: apiServer.https.tlsCaFile: cannot read nowhere.pem: No such file or directory\n"
    assert (done.returncode, done.stderr) == (1, said)


def test_nothing_can_be_required_that_cannot_be_verified() -> None:
    with pytest.raises(Misconfigured, match="requireClientCert needs apiServer"):
        settings_file.load(environment={"KUMA_API_SERVER_HTTPS_REQUIRE_CLIENT_CERT": "true"})
    names = {"KUMA_API_SERVER_HTTPS_REQUIRE_CLIENT_CERT": "true", "KUMA_API_SERVER_AUTH_CLIENT_CERTS_DIR": "/certs"}
    assert settings_file.load(environment=names).api_server.auth.client_certs_dir == Path("/certs")


async def test_a_way_around_is_warned_of(tmp_path: Path, pki: Pki, capsys: pytest.CaptureFixture[str]) -> None:
    api = {
        "http": {"port": 0, "interface": "0.0.0.0"},
        "https": {"port": 0, "tls_ca_file": pki.file, "require_client_cert": True},
    }
    async with running(tmp_path / "cp", api_server=api):
        pass
    assert "other machines reach the API over HTTP" in capsys.readouterr().out
