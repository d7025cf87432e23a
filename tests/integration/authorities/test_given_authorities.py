"""What is said to be refused by Envoy is refused by it, and what is said to be taken is taken: by the real one."""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from demo.processes import free_ports
from kuma.agent.envoy import find_binary
from kuma.pki import trial
from kuma.pki.authority import AuthorityUnusable, LocalAuthority, SignRequest
from kuma.pki.x509 import CaPair, certificate_pem, key_pem
from tests.fakes.patience import PATIENCE

NOW = datetime.now(UTC)
URI = "spiffe://default/x"
FILTERS = "type.googleapis.com/envoy.extensions.filters"
EXTENSIONS: dict[str, tuple[x509.ExtensionType, bool]] = {
    "any purpose": (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]), False),
    "servers": (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
    "code signing": (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), False),
    "both ends": (
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), False,
    ),
    "other names": (x509.NameConstraints([x509.UniformResourceIdentifier("example.com")], None), True),
    "something unknown": (x509.UnrecognizedExtension(ObjectIdentifier("1.2.3.4"), b"\x05\x00"), True),
}  # fmt: skip


def made(
    name: str,
    signer: CaPair | None = None,
    extension: tuple[x509.ExtensionType, bool] | None = None,
    *,
    says_who_signed: bool = True,
) -> CaPair:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer, signing = (signer.certificate.subject, signer.key) if signer else (subject, key)
    assert isinstance(signing, ec.EllipticCurvePrivateKey)
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    builder = (
        x509.CertificateBuilder(
            issuer, subject, key.public_key(), x509.random_serial_number(), NOW - timedelta(days=1), NOW + timedelta(9)
        )
        .add_extension(x509.BasicConstraints(True, None), True)
        .add_extension(usage, True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
    )
    if says_who_signed:
        builder = builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()), False)
    if extension:
        builder = builder.add_extension(*extension)
    return CaPair(builder.sign(signing, hashes.SHA256()), key)


def authorities() -> dict[str, LocalAuthority]:
    """By what is odd about them, in a root and below one."""
    found = {}
    plain = made("root")
    for title, extension in EXTENSIONS.items():
        root, below = made("root", None, extension), made("below", plain, extension)
        found[f"root: {title}"] = LocalAuthority("own", root)
        found[f"below: {title}"] = LocalAuthority("own", below, (below.certificate, plain.certificate))
    for title, says_who_signed in (("", True), (", without a word on which key signed it", False)):
        same_name = made("root", plain, says_who_signed=says_who_signed)
        chain = (same_name.certificate, plain.certificate)
        found[f"below: the name of its issuer{title}"] = LocalAuthority("own", same_name, chain)
    return found


async def chain_of(authority: LocalAuthority) -> tuple[str, str]:
    """A leaf with what leads to the root, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    request = SignRequest(key.public_key(), (URI,), NOW - timedelta(hours=1), NOW + timedelta(hours=1))
    signed = await authority.sign(request)
    chain = b"".join(map(certificate_pem, (signed.leaf, *signed.intermediates)))
    return chain.decode(), key_pem(key).decode()


def listener(port: int, chain: str, key: str, roots: str) -> dict[str, Any]:
    """Answers whoever shows a certificate that holds by `roots`."""
    tls = {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "require_client_certificate": True,
        "common_tls_context": {
            "tls_certificates": [
                {"certificate_chain": {"inline_string": chain}, "private_key": {"inline_string": key}}
            ],
            "validation_context": {"trusted_ca": {"inline_string": roots}},
        },
    }
    answer = {
        "@type": f"{FILTERS}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "http_filters": [{"name": "router", "typed_config": {
            "@type": f"{FILTERS}.http.router.v3.Router"}}],
        "route_config": {"virtual_hosts": [{"name": "in", "domains": ["*"], "routes": [
            {"match": {"prefix": "/"}, "direct_response": {"status": 200}}]}]},
    }  # fmt: skip
    return {
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{
            "filters": [{"name": "answer", "typed_config": answer}],
            "transport_socket": {"name": "tls", "typed_config": tls},
        }],
    }  # fmt: skip


async def is_let_in(port: int, chain_and_key: Path) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(chain_and_key)
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        try:
            writer.write(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            return (await reader.read(15)).startswith(b"HTTP/1.1 200")
        finally:
            writer.close()
    except (ssl.SSLError, ConnectionError):
        return False


async def test_envoy_and_the_trial_agree_on_every_authority(tmp_path: Path) -> None:
    found = authorities()
    ports = dict(zip(found, free_ports(len(found)), strict=True))
    listeners = []
    for title, authority in found.items():
        chain, key = await chain_of(authority)
        (tmp_path / f"{ports[title]}.pem").write_text(chain + key)
        listeners.append(listener(ports[title], chain, key, authority.roots_pem.decode()))
    (tmp_path / "envoy.json").write_text(json.dumps({"static_resources": {"listeners": listeners}}))
    command = [find_binary(None), "-c", tmp_path / "envoy.json", "--disable-hot-restart", "-l", "error"]
    envoy = subprocess.Popen(list(map(str, command)))
    try:
        async with asyncio.timeout(PATIENCE):
            while True:  # until it listens
                try:
                    (await asyncio.open_connection("127.0.0.1", list(ports.values())[-1]))[1].close()
                    break
                except OSError:
                    await asyncio.sleep(0.1)
            taken = {title: await is_let_in(port, tmp_path / f"{port}.pem") for title, port in ports.items()}
    finally:
        envoy.kill()
        envoy.wait()
    assert {title: await holds(authority) for title, authority in found.items()} == taken
    assert {title for title, let_in in taken.items() if not let_in} >= {"below: code signing", "below: other names"}


async def holds(authority: LocalAuthority) -> bool:
    try:
        await trial.check("default", authority, NOW)
    except AuthorityUnusable:
        return False
    return True
