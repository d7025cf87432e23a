"""The servers' certificate is replaced while they run: what proxies and clients see, and what is not taken up."""

from __future__ import annotations

import asyncio
import os
import shutil
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from structlog.testing import capture_logs

from kuma.app.serving import server_certificate
from kuma.app.serving.certificate_watch import CertificateWatch
from kuma.app.serving.server_certificate import ServerCertificate
from kuma.app.serving.servers import HTTPS
from kuma.xds.envoy.resource import TypeUrl
from tests.fakes.clock import ManualClock
from tests.fakes.control_plane import dataplane, running
from tests.fakes.patience import PATIENCE

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def made(directory: Path, now: datetime = NOW, *names: str) -> ServerCertificate:
    """Another certificate under the CA in a directory."""
    for name in ("tls.crt", "tls.key"):
        (directory / name).unlink(missing_ok=True)
    return server_certificate.ensure(directory, ("localhost", *names), now)


@pytest.fixture
def files(tmp_path: Path) -> ServerCertificate:
    return made(tmp_path / "given")


@pytest.fixture
def watch(files: ServerCertificate) -> CertificateWatch:
    return CertificateWatch(
        lambda: server_certificate.given(files.chain, files.key, files.ca, files.ca.parent), ManualClock(NOW)
    )


def test_a_whole_pair_is_taken_up(files: ServerCertificate, watch: CertificateWatch) -> None:
    told: list[bytes] = []
    watch.identity.on_change(lambda: told.append(watch.identity.pair[1]))
    watch.look()
    assert not told
    made(files.ca.parent, NOW, "new.example")
    watch.look()
    assert told == [files.chain.read_bytes()]
    assert "new.example" in watch.names().names
    watch.identity.context()  # the two belong together


def test_a_certificate_of_our_own_is_made_anew_while_it_runs(tmp_path: Path) -> None:
    """Long before it ends, under the same CA; and the old one stays as long as that cannot be done."""
    clock, directory = ManualClock(NOW), tmp_path / "own"
    watch = CertificateWatch(lambda: server_certificate.ensure(directory, ("localhost",), clock.now()), clock)
    first, ca = watch.identity.pair, (directory / "ca.crt").read_bytes()
    clock.advance(10 * 86400)
    watch.look()
    assert watch.identity.pair == first, "it is new enough"
    key = (directory / "ca.key").read_bytes()
    (directory / "ca.key").unlink()
    clock.advance(30 * 86400)
    with capture_logs() as logs:
        watch.look()
        watch.look()
    assert [entry["event"] for entry in logs] == ["the servers' certificate cannot be made anew; the old one stays"]
    assert watch.identity.pair == first
    (directory / "ca.key").write_bytes(key)
    clock.advance(86400)
    watch.look()
    assert watch.identity.pair != first
    assert (directory / "ca.crt").read_bytes() == ca
    leaf = x509.load_pem_x509_certificate(watch.identity.pair[1])
    leaf.verify_directly_issued_by(x509.load_pem_x509_certificate(ca))
    assert leaf.not_valid_after_utc > clock.now() + timedelta(days=365)
    assert "localhost" in watch.names().names


def test_half_a_pair_and_what_is_none_leave_the_old_one(
    files: ServerCertificate, watch: CertificateWatch, tmp_path: Path
) -> None:
    before, other = watch.identity.pair, made(tmp_path / "other")
    for path, content in (
        (files.key, other.key.read_bytes()),  # the chain is still to come
        (files.chain, b"-----BEGIN CERTIFICATE-----\nMII"),
        (files.chain, b""),
    ):
        path.write_bytes(content)
        with capture_logs() as logs:
            watch.look()
            watch.look()
        assert [(entry["log_level"], entry["event"]) for entry in logs] == [
            ("warning", "the servers' new certificate is not used; the old one stays")
        ]
        assert watch.identity.pair == before
    files.chain.unlink()
    watch.look()
    assert watch.identity.pair == before
    shutil.copy(other.chain, files.chain)
    watch.look()
    assert watch.identity.pair == (other.key.read_bytes(), other.chain.read_bytes())


def test_one_that_nears_its_end_and_has_ended_is_told_every_day(files: ServerCertificate) -> None:
    """It was given, and nobody has replaced it."""
    clock = ManualClock(NOW)
    watch = CertificateWatch(
        lambda: server_certificate.given(files.chain, files.key, files.ca, files.ca.parent), clock
    )  # fmt: skip
    with capture_logs() as logs:
        for days in (300, 90, 1, 10, 1):
            clock.advance(days * 86400)
            watch.look()
    assert [entry["log_level"] for entry in logs] == ["warning", "warning", "error", "error"]
    assert logs[0]["event"] == "the servers' certificate ends at 2027-02-02 00:00 UTC, and has not been replaced"
    assert logs[3]["event"] == "the servers' certificate ended at 2027-02-02 00:00 UTC: nobody trusts it any more"
    assert "replace" in logs[0]["remedy"]


def test_one_that_has_ended_is_not_taken_up_and_another_ca_is_told(
    files: ServerCertificate, watch: CertificateWatch, tmp_path: Path
) -> None:
    before = watch.identity.pair
    made(files.ca.parent, NOW - timedelta(days=500))
    with capture_logs() as logs:
        watch.look()
    assert "has ended" in logs[0]["reason"]
    assert watch.identity.pair == before
    other = made(tmp_path / "other")
    for mine, its in ((files.ca, other.ca), (files.key, other.key), (files.chain, other.chain)):
        shutil.copy(its, mine)
    with capture_logs() as logs:
        watch.look()
    assert "the servers' CA is another" in logs[-1]["event"]


async def test_every_server_shows_it_and_proxies_stay(tmp_path: Path) -> None:
    given = made(tmp_path / "given", datetime.now(UTC))
    shutil.copy(given.ca, tmp_path)  # where proxies of the test look for it
    general = {"work_dir": tmp_path, "tls_cert_file": given.chain, "tls_key_file": given.key, "tls_ca_file": given.ca}
    async with running(tmp_path, general=general) as cp:
        proxy = await cp.proxy(dataplane("web-1", "web"))
        await proxy.until(lambda: proxy.names(TypeUrl.LISTENER))
        ports = [await server.port() for server in (cp.parts.api[HTTPS], cp.parts.dp, cp.parts.xds)]

        async def shown() -> set[int]:
            return {await _serial(port, given.ca) for port in ports}

        first = await shown()
        made(given.ca.parent, datetime.now(UTC))
        async with asyncio.timeout(PATIENCE):
            while (second := await shown()) & first:
                await asyncio.sleep(0.1)
        assert len(second) == 1
        assert proxy.connected
        another = await cp.proxy(dataplane("web-2", "web", port=81))
        await another.until(lambda: another.names(TypeUrl.LISTENER))


async def _serial(port: int, ca: Path) -> int:
    context = ssl.create_default_context(cafile=str(ca))
    _, writer = await asyncio.open_connection("localhost", port, ssl=context)
    found = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return x509.load_der_x509_certificate(found).serial_number


@pytest.mark.parametrize("name", ["tls.key", "tls.crt", "ca.crt"])
def test_a_pipe_in_the_place_of_a_file_keeps_nothing_waiting(
    files: ServerCertificate, watch: CertificateWatch, name: str
) -> None:
    before, path = watch.identity.pair, files.ca.parent / name
    path.unlink()
    os.mkfifo(path)
    with capture_logs() as logs:
        watch.look()
    assert logs[-1]["event"] == "the servers' new certificate is not used; the old one stays"
    assert watch.identity.pair == before


def test_a_key_that_everybody_can_read_is_told_when_it_comes(files: ServerCertificate, watch: CertificateWatch) -> None:
    made(files.ca.parent, NOW, "new.example")
    files.key.chmod(0o644)
    with capture_logs() as logs:
        watch.look()
    assert any("everybody on this machine" in line["event"] for line in logs)
