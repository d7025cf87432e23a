"""Certificates that are replaced while connections are open, and keys that nobody else ever sees."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from kuma.base import logs
from kuma.resources import kinds
from tests.fakes.control_plane import ALLOW_ALL, MTLS, Running, running
from tests.fakes.patience import PATIENCE
from tests.integration.clients import own_authority, with_leaf_of
from tests.integration.keys import Needle
from tests.integration.sidecars import Sidecar, Sidecars, sidecars, until

SHORT = MTLS.replace("type: builtin", "type: builtin, dpCert: {rotation: {expiration: 3s}}")


@pytest.fixture
def declared() -> tuple[str, ...]:
    return MTLS, ALLOW_ALL


@pytest.fixture
def xds_server() -> dict[str, Any]:
    return {"connection_linger": "10m"}  # connections do not end, however long the rotations take


def serial(cp: Running, name: str) -> int:
    """The certificate that a proxy has now."""
    proxy = cp.parts.proxies.get(kinds.DATAPLANE.key(name, "default"))
    assert proxy is not None
    assert proxy.keeper.identity is not None
    return proxy.keeper.identity.serial


async def shown(server: Sidecar, context: ssl.SSLContext) -> int:
    """The serial of the certificate that a new connection is shown."""
    _, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=context)
    certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return x509.load_der_x509_certificate(certificate).serial_number


async def test_connections_survive_rotation_and_new_ones_use_the_new_certificate(
    cp: Running, mesh: Sidecars, tmp_path: Path
) -> None:
    await cp.apply(SHORT)
    web, backend = await mesh.pair("tcp")
    context = await with_leaf_of(own_authority(cp), tmp_path)
    first = {name: serial(cp, f"{name}-01") for name in ("web", "backend")}
    reader, writer = await asyncio.open_connection("127.0.0.1", web.outbounds["backend"])
    said = 0

    async def say() -> None:
        nonlocal said
        said += 1
        writer.write(f"{said}".encode())
        await writer.drain()
        assert await asyncio.wait_for(reader.read(100), PATIENCE) == f"backend:{said}".encode()

    await say()
    for _ in range(3):
        before = {name: serial(cp, f"{name}-01") for name in first}

        async def both_rotated() -> bool:
            await say()
            return all(serial(cp, f"{name}-01") != old for name, old in before.items())  # noqa: B023

        await until("both have other certificates", both_rotated)

    async def new_one() -> bool:
        return await shown(backend, context) not in {first["backend"], before["backend"]}

    await until("a new connection is shown a new certificate", new_one)
    await say()
    assert said > 3
    writer.close()
    await writer.wait_closed()


@pytest.fixture(params=["json", "console"])
def control_planes_log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Logs as `kuma-cp` does, and as much as it can, to a file."""
    path = tmp_path / "kuma-cp.log"
    with path.open("w") as file:
        logs.log_as("debug", request.param, logs.Output(file.fileno()))
        yield path
    structlog.reset_defaults()


async def test_no_leaf_key_is_written_down_anywhere(control_planes_log: Path, tmp_path: Path) -> None:
    """Not in the control plane's log, its store, its work directory, or a log of kuma-dp; in no form."""
    keys: set[bytes] = set()

    def remember(proxy: Any) -> None:
        if proxy.keeper.identity is not None:
            keys.add(proxy.keeper.identity.key_pem)

    async with running(tmp_path) as cp:
        cp.parts.proxies.on_progress(remember)
        await cp.apply(SHORT, ALLOW_ALL)
        async with sidecars(cp, tmp_path) as mesh:
            _, backend = await mesh.pair()

            async def rotated() -> bool:
                return len(keys) >= 6

            await until("certificates have rotated", rotated)
            await cp.apply(MTLS.replace("ca-1", "ca-2"))

            async def issued_by_another() -> bool:
                return {p.keeper.identity.backend for p in cp.parts.proxies if p.keeper.identity} == {"ca-2"}

            await until("another authority has issued all certificates", issued_by_another)
            await mesh.converged()
            backend.running.kill()  # what it leaves behind counts, too
            await backend.running.wait()
            await mesh.run(backend)
        assert len(keys) >= 9
    log = control_planes_log.read_text()
    assert "proxy connected" in log
    assert "mutual TLS" in log
    places = {path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert {"kuma-cp.log", "kuma.db", "audit.jsonl", "backend.log", "web.log"} <= set(places)
    for needle in map(Needle, keys):
        assert [name for name, content in places.items() if needle.is_in(content)] == []


def test_a_key_that_is_written_down_would_be_found() -> None:
    """In every form that it is looked for."""
    key, other = [ec.derive_private_key(int(digits * 7), ec.SECP256R1()) for digits in ("8675309271", "9753108642")]

    def encoded(encoding: serialization.Encoding, form: serialization.PrivateFormat) -> bytes:
        return key.private_bytes(encoding, form, serialization.NoEncryption())

    pem, der = serialization.Encoding.PEM, serialization.Encoding.DER
    for form in (serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL):
        forms = {
            "PEM": encoded(pem, form),
            "PEM in JSON": json.dumps({"key": encoded(pem, form).decode()}).encode(),
            "PEM in a log": json.dumps({"event": f"{encoded(pem, form)!r}"}).encode(),
            "PEM in base64": base64.b64encode(encoded(pem, form)),
            "PEM in base64 of more": base64.b64encode(b"\x0a\xf1" + encoded(pem, form) + b"more"),
            "DER": encoded(der, form),
            "DER in a log": json.dumps({"event": f"{encoded(der, form)!r}"}).encode(),
            "DER in base64": base64.b64encode(encoded(der, form)),
            "DER in base64 for URLs": base64.urlsafe_b64encode(encoded(der, form)),
            "DER in base64 of more": base64.b64encode(b"\x0a" + encoded(der, form)),
            "DER in lines of base64": base64.encodebytes(encoded(der, form)),
            "hexadecimal": encoded(der, form).hex().upper().encode(),
        }
        p8 = serialization.PrivateFormat.PKCS8
        needle = Needle(encoded(pem, p8))
        stranger = Needle(other.private_bytes(pem, p8, serialization.NoEncryption()))
        for name, text in forms.items():
            assert needle.is_in(b"before " + text + b" after"), name
            assert not stranger.is_in(text), name
