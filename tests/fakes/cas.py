"""Certificate authorities that are not ours, made by openssl, as users make them."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

SAMPLE = """
[req]
distinguished_name=dn
[ dn ]
[ ext ]
basicConstraints=CA:TRUE,pathlen:0
keyUsage=keyCertSign
"""


@dataclass(frozen=True)
class Ca:
    """A CA certificate (or chain) and its key, in PEM."""

    cert: str = field(repr=False)
    key: str = field(repr=False)


def openssl(directory: Path, *arguments: str) -> None:
    done = subprocess.run(["openssl", *arguments], cwd=directory, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


_USUAL = ("rsa:2048",)
"""The algorithm of most. To make such a key takes ten times as long as all else, so they are taken from the keys that
come again; the others are openssl's, too."""


def _key(directory: Path, name: str, algorithm: tuple[str, ...]) -> tuple[str, ...]:
    """Returns how openssl is told which key a certificate is for, in a file of that name."""
    if algorithm != _USUAL:
        return ("-newkey", *algorithm, "-nodes", "-keyout", f"{name}.key")
    key = rsa.generate_private_key(65537, 2048)
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (directory / f"{name}.key").write_bytes(key.private_bytes(*form))
    return ("-key", f"{name}.key")


def root(
    directory: Path,
    name: str,
    extensions: str = SAMPLE,
    algorithm: tuple[str, ...] = _USUAL,
    days: str = "30",
    serial: str = "1",
) -> Ca:
    """A self-signed CA; with the defaults it is the reference's own example."""
    (directory / f"{name}.cnf").write_text(extensions)
    openssl(
        directory, "req", "-config", f"{name}.cnf", "-new", *_key(directory, name, algorithm), "-subj", f"/CN={name}",
        "-x509", "-extensions", "ext", "-days", days, "-set_serial", serial, "-out", f"{name}.crt",
    )  # fmt: skip
    return Ca((directory / f"{name}.crt").read_text(), (directory / f"{name}.key").read_text())


def intermediate(directory: Path, name: str, issuer: str, extensions: str = SAMPLE, digest: str = "sha256") -> Ca:
    """A CA that another one, made before, has signed; its chain has its own certificate only."""
    (directory / f"{name}.cnf").write_text(extensions)
    openssl(
        directory, "req", "-config", f"{name}.cnf", "-new", *_key(directory, name, _USUAL), "-subj", f"/CN={name}",
        "-out", f"{name}.csr",
    )  # fmt: skip
    openssl(
        directory, "x509", "-req", "-in", f"{name}.csr", "-CA", f"{issuer}.crt", "-CAkey", f"{issuer}.key",
        f"-{digest}", "-days", "30", "-extfile", f"{name}.cnf", "-extensions", "ext", "-out", f"{name}.crt",
    )  # fmt: skip
    return Ca((directory / f"{name}.crt").read_text(), (directory / f"{name}.key").read_text())


def with_extensions(*lines: str) -> str:
    """A configuration of openssl with these extensions."""
    return "\n".join(["[req]", "distinguished_name=dn", "[ dn ]", "[ ext ]", *lines, ""])


def on_curve(curve: str) -> tuple[str, ...]:
    """The algorithm of a CA on an elliptic curve, as openssl calls it."""
    return ("ec", "-pkeyopt", f"ec_paramgen_curve:{curve}")
