"""`kumactl generate tls-certificate`: a certificate for trying things out, made here."""

from __future__ import annotations

import ipaddress
import os
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from kuma.base.errors import Misconfigured

_BACKDATED = timedelta(hours=1)
"""Clocks differ."""
_LIFETIME = timedelta(days=10 * 365)
_Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


class Purpose(StrEnum):
    """Purpose of a certificate."""

    SERVER = "server"
    CLIENT = "client"


class KeyType(StrEnum):
    """The kind of its key."""

    RSA = "rsa"
    ECDSA = "ecdsa"


def tls_certificate(
    purpose: Annotated[Purpose, typer.Option("--type", help="Whose certificate it is.")],
    hostname: Annotated[
        list[str] | None, typer.Option("--hostname", help="Name or address of the server; several by commas.")
    ] = None,
    key_type: Annotated[KeyType, typer.Option("--key-type", help="The kind of its key.")] = KeyType.RSA,
    cert_file: Annotated[str, typer.Option(help="Where the certificate goes; - is standard output.")] = "cert.pem",
    key_file: Annotated[str, typer.Option(help="Where its key goes; - is standard output.")] = "key.pem",
) -> None:
    """Make a certificate and a key that vouch for themselves, for ten years.

    Example: kumactl generate tls-certificate --type server --hostname cp.example.com,10.0.0.1
    """
    names = [name.strip() for text in hostname or () for name in text.split(",") if name.strip()]
    if purpose is Purpose.SERVER and not names:
        raise Misconfigured("--hostname is needed: clients compare it with the name that they call")
    key: _Key = (
        rsa.generate_private_key(65537, 2048) if key_type is KeyType.RSA else ec.generate_private_key(ec.SECP256R1())
    )
    form = PrivateFormat.TraditionalOpenSSL
    _write(key_file, key.private_bytes(Encoding.PEM, form, NoEncryption()), 0o400)
    _write(cert_file, _certificate(key, purpose, names).public_bytes(Encoding.PEM), 0o644)
    for what, file in (("Private key", key_file), ("Certificate", cert_file)):
        if file != "-":
            typer.echo(f"{what} saved in {file}", err=True)


def _certificate(key: _Key, purpose: Purpose, names: list[str]) -> x509.Certificate:
    now, whom = datetime.now(UTC), _subject(names[0] if names else "kuma client")
    server = ExtendedKeyUsageOID.SERVER_AUTH
    usage = server if purpose is Purpose.SERVER else ExtendedKeyUsageOID.CLIENT_AUTH
    begin = now - _BACKDATED
    builder = (
        x509.CertificateBuilder(whom, whom, key.public_key(), x509.random_serial_number(), begin, now + _LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_USAGE, critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([_name(n) for n in names]), critical=False)
    return builder.sign(key, hashes.SHA256())


_USAGE = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=True,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)


def _subject(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common[:64])])


def _name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        pass
    try:
        return x509.DNSName(text)
    except ValueError:
        raise Misconfigured(f"--hostname {text}: is no name of a host") from None


def _write(file: str, content: bytes, mode: int) -> None:
    if file == "-":
        typer.echo(content, nl=False)
        return
    try:
        with os.fdopen(os.open(Path(file), os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as opened:
            opened.write(content)
    except FileExistsError:
        raise Misconfigured(f"{file} is there already, and is not overwritten") from None
    except OSError as error:
        raise Misconfigured(f"cannot write {file}: {error.strerror}") from None
