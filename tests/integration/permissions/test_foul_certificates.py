"""Certificates of the mesh's own authority that are no identity of it: nothing that nearly names a service is one.

Whoever has the authority can be anybody. But a CA that is provided may have issued certificates for other purposes, and
nobody becomes a service by what such a one happens to say.
"""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from kuma.pki import pem
from kuma.pki.own_ca import new_ca
from kuma.pki.x509 import CaPair, certificate_pem, usage
from tests.fakes.control_plane import MTLS, Running
from tests.integration.clients import in_the_mesh, without_certificate
from tests.integration.door import GREETING, WEB
from tests.integration.sidecars import Sidecars, exchange, until

CLIENT, SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH
PERMISSION = (
    "{type: TrafficPermission, mesh: default, name: web, sources: [{match: {kuma.io/service: web}}], "
    "destinations: [{match: {kuma.io/service: backend}}]}"
)
NEARLY = (
    "spiffe://default/%77eb", "spiffe://default/./web", "spiffe://default//web", "spiffe://default/web/",
    "spiffe://default/a/../web", "spiffe://DEFAULT/web", "SPIFFE://default/web", "spiffe://other/web",
    "spiffe://default/*", "spiffe://*/web", "spiffe://default/web\0", "spiffe://default/web?x", "spiffe://default/web#x",
    "spiffe://default:443/web", "spiffe://x@default/web", "spiffe://default/Web", "spiffe://default/web-2", "",
)  # fmt: skip


def leaf(
    issuer: CaPair,
    names: Sequence[x509.GeneralName],
    purposes: Sequence[ObjectIdentifier] = (CLIENT, SERVER),
) -> bytes:
    """A certificate and its key in PEM."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, WEB)])
    builder = (
        x509.CertificateBuilder(issuer.certificate.subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage("digital_signature"), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if purposes:
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    return certificate_pem(builder.sign(issuer.key, hashes.SHA256())) + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def client(directory: Path, shown: bytes) -> ssl.SSLContext:
    (directory / "leaf.pem").write_bytes(shown)
    context = without_certificate()
    context.load_cert_chain(directory / "leaf.pem")
    return in_the_mesh(context)


async def test_no_certificate_that_nearly_names_a_service_is_its_identity(
    cp: Running, mesh: Sidecars, tmp_path: Path
) -> None:
    uri = x509.UniformResourceIdentifier
    await cp.apply(MTLS, PERMISSION)
    backend = await mesh.start("backend", protocol="tcp")
    backend.greeting = GREETING
    secrets = cp.parts.views.view("default").secrets
    given = CaPair(
        pem.read_chain(secrets["default.ca-builtin-cert-ca-1"].spec.data)[0],
        pem.read_key(secrets["default.ca-builtin-key-ca-1"].spec.data),
    )
    good = client(tmp_path, leaf(given, [uri(WEB)]))
    assert await until("web is greeted", lambda: exchange(backend.port, b"", good)) == GREETING

    named_alike = new_ca(given.certificate.subject, datetime.now(UTC), timedelta(days=30))
    foul = {
        **{f"URI {name!r}": leaf(given, [uri(name)]) for name in NEARLY},
        "no names but a subject": leaf(given, []),
        "a DNS name": leaf(given, [x509.DNSName(WEB)]),
        "a mail address": leaf(given, [x509.RFC822Name("spiffe://default/web@x")]),
        "an IP address": leaf(given, [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
        "for servers only": leaf(given, [uri(WEB)], (SERVER,)),
        "for code only": leaf(given, [uri(WEB)], (ExtendedKeyUsageOID.CODE_SIGNING,)),
        "of another authority with the same name": leaf(named_alike, [uri(WEB)]),
    }
    seen = backend.reached
    admitted = [
        name for name, shown in foul.items() if await exchange(backend.port, b"", client(tmp_path, shown)) != b""
    ]
    assert not admitted
    assert await exchange(backend.port, b"", client(tmp_path, leaf(given, [uri(WEB)]))) == GREETING
    assert backend.reached == seen + 1
