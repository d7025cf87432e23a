"""`kumactl generate signing-key` and `public-key`: the keys that tokens are made with and judged by."""

from __future__ import annotations

import base64
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from kuma.kumactl import offline_signing


class KeyForm(StrEnum):
    """Printed form of a signing key."""

    BASE64 = "pem-base64"
    PEM = "pem"


def signing_key(
    form: Annotated[KeyForm, typer.Option("--format", help="pem, or its base64 as a Secret's data.")] = KeyForm.BASE64,
) -> None:
    """Print a new signing key for tokens: store it in a Secret whose number is one higher than the last.

    Example: kumactl generate signing-key --format pem
    """
    pem = _new_key().private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    typer.echo(pem if form is KeyForm.PEM else base64.b64encode(pem), nl=False)


def public_key(
    signing_key_path: Annotated[Path, typer.Option(help="File with a signing key, PEM.")],
) -> None:
    """Print the public half of a signing key.

    Example: kumactl generate public-key --signing-key-path key.pem
    """
    key = offline_signing.load_key(signing_key_path)
    typer.echo(key.public_key().public_bytes(Encoding.PEM, PublicFormat.PKCS1), nl=False)


def _new_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)
