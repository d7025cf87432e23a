"""The certificate of the control plane's own servers."""

import resource
import signal
import ssl
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from kuma.app.serving import server_certificate
from kuma.base.errors import Misconfigured


def test_openssl_verifies_the_servers_by_every_name(tmp_path: Path) -> None:
    files = server_certificate.ensure(
        tmp_path / "cp", ("localhost", "127.0.0.1", "::1", "cp.example"), datetime.now(UTC)
    )
    names = {"localhost": "hostname", "cp.example": "hostname", "127.0.0.1": "ip", "::1": "ip"}
    for name, kind in names.items():
        command = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", f"-verify_{kind}", name, "-CAfile"]
        done = subprocess.run([*command, files.ca, files.chain], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_the_ca_stays_and_the_certificate_follows_the_names(tmp_path: Path) -> None:
    first = server_certificate.ensure(tmp_path, ("localhost",), datetime.now(UTC))
    ca, chain = first.ca.read_bytes(), first.chain.read_bytes()
    second = server_certificate.ensure(tmp_path, ("localhost", "new.example"), datetime.now(UTC))
    assert second.ca.read_bytes() == ca
    assert second.chain.read_bytes() != chain


def test_keys_are_the_owners(tmp_path: Path) -> None:
    server_certificate.ensure(tmp_path, ("localhost",), datetime.now(UTC))
    assert {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("ca.key", "tls.key")} == {0o600}


def test_half_a_ca_is_not_replaced(tmp_path: Path) -> None:
    server_certificate.ensure(tmp_path, ("localhost",), datetime.now(UTC))
    (tmp_path / "ca.key").unlink()
    with pytest.raises(Misconfigured, match=r"only one of ca\.crt and ca\.key"):
        server_certificate.ensure(tmp_path, ("localhost",), datetime.now(UTC))


@pytest.mark.parametrize("damaged", ["ca.crt", "ca.key"])
@pytest.mark.parametrize("content", ["", "something else"])
def test_a_damaged_ca_is_named_and_not_replaced(tmp_path: Path, damaged: str, content: str) -> None:
    server_certificate.ensure(tmp_path, ("localhost",), datetime.now(UTC))
    (tmp_path / damaged).write_text(content)
    with pytest.raises(Misconfigured, match=r"ca\.crt and .*ca\.key have to hold a certificate and its key"):
        server_certificate.ensure(tmp_path, ("localhost",), datetime.now(UTC))
    assert (tmp_path / damaged).read_text() == content


@pytest.mark.system
def test_a_kill_in_the_first_start_is_made_good_by_the_next(tmp_path: Path) -> None:
    for change in count():
        directory = tmp_path / str(change)
        command = [sys.executable, "-m", "tests.fakes.killed", "first start", str(directory), str(change)]
        status = subprocess.run(command, check=False).returncode
        server_certificate.ensure(directory, ("localhost",), datetime.now(UTC))
        if status == 0:
            assert change > 3
            return
        assert status == -signal.SIGKILL


def test_keys_that_others_could_read_are_theirs_no_more(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    server_certificate.ensure(tmp_path, ["localhost"], now)
    for name in ("ca.key", "tls.key"):
        (tmp_path / name).chmod(0o644)
    server_certificate.ensure(tmp_path, ["localhost"], now)
    for name in ("ca.key", "tls.key"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600


def test_what_has_not_changed_is_not_written(tmp_path: Path) -> None:
    """A disk that is full then keeps nothing from starting."""
    now = datetime.now(UTC)
    server_certificate.ensure(tmp_path, ("localhost", "localhost", "::1"), now)
    before = {path: (path.stat().st_ino, path.read_bytes()) for path in tmp_path.iterdir()}
    server_certificate.ensure(tmp_path, ("localhost", "::1"), now + timedelta(days=29))
    assert {path: (path.stat().st_ino, path.read_bytes()) for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("days", [-1, 31, 500])
def test_a_certificate_that_does_not_hold_or_is_old_is_replaced(tmp_path: Path, days: int) -> None:
    now = datetime.now(UTC)
    first = server_certificate.ensure(tmp_path, ("localhost",), now).chain.read_bytes()
    assert server_certificate.ensure(tmp_path, ("localhost",), now + timedelta(days=days)).chain.read_bytes() != first


@pytest.mark.parametrize("spoilt", ["tls.crt", "tls.key"])
def test_a_certificate_that_is_damaged_or_half_written_is_replaced(tmp_path: Path, spoilt: str) -> None:
    now = datetime.now(UTC)
    server_certificate.ensure(tmp_path / "other", ("localhost",), now)
    server_certificate.ensure(tmp_path, ("localhost",), now)
    for content in (b"", (tmp_path / "other" / spoilt).read_bytes()):
        (tmp_path / spoilt).write_bytes(content)
        files = server_certificate.ensure(tmp_path, ("localhost",), now)
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(files.chain, files.key)


def test_an_old_certificate_is_used_while_no_other_can_be_written(tmp_path: Path) -> None:
    now, months = datetime.now(UTC), timedelta(days=100)
    first = server_certificate.ensure(tmp_path, ("localhost",), now).chain.read_bytes()
    usual, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, most))
    try:
        with capture_logs() as logged:
            assert server_certificate.ensure(tmp_path, ("localhost",), now + months).chain.read_bytes() == first
        assert [entry["log_level"] for entry in logged] == ["warning"]
        with pytest.raises(Misconfigured, match="cannot keep the control plane's certificate"):
            server_certificate.ensure(tmp_path, ("localhost",), now + 5 * months)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (usual, most))


def test_what_ends_with_a_self_signed_certificate_needs_no_ca_of_its_own(tmp_path: Path) -> None:
    made = server_certificate.ensure(tmp_path / "made", ("localhost",), datetime.now(UTC))
    whole = tmp_path / "whole.crt"
    whole.write_bytes(made.chain.read_bytes() + made.ca.read_bytes())
    found = server_certificate.given(whole, made.key, None, tmp_path / "cp")
    assert found.ca.read_bytes() == made.ca.read_bytes()
    before = found.ca.stat().st_mtime_ns
    server_certificate.given(whole, made.key, None, tmp_path / "cp")
    assert found.ca.stat().st_mtime_ns == before
    with pytest.raises(Misconfigured, match="give the CA by which proxies verify it"):
        server_certificate.given(made.chain, made.key, None, tmp_path / "cp")
