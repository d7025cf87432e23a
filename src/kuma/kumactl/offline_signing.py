"""Signing tokens without a control plane, by a key that it knows too."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

from kuma.base.errors import Misconfigured
from kuma.base.tls import private_keys
from kuma.base.values import durations

_BACKDATED = timedelta(minutes=5)
"""Tokens begin this long before they are made: clocks differ."""


def load_key(path: Path) -> rsa.RSAPrivateKey:
    """The signing key in a file.

    Raises:
        Misconfigured: there is none.
    """
    try:
        key = private_keys.load(path.read_bytes())
    except OSError as error:
        raise Misconfigured(f"cannot read {path}: {error.strerror}") from None
    except private_keys.TooLarge as error:
        raise Misconfigured(f"{path}: {error}") from None
    except private_keys.UnusableKey:
        raise Misconfigured(f"{path} does not hold a private key in PEM") from None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise Misconfigured(f"{path} does not hold an RSA key")
    return key


def sign(claims: Mapping[str, Any], valid_for: str, key_path: Path | None, kid: str) -> str:
    """A token as the control plane would make it.

    Raises:
        Misconfigured: only one of key and number is given, or one makes no sense.
    """
    if key_path is None or not kid:
        raise Misconfigured("--signing-key-path and --kid are given together or not at all")
    try:
        lifetime = durations.parse_go_duration(valid_for)
    except ValueError as error:
        raise Misconfigured(f"--valid-for {error}") from None
    now = datetime.now(UTC)
    times = {"exp": now + lifetime, "nbf": now - _BACKDATED, "iat": now}
    whole = {**claims, **{name: int(time.timestamp()) for name, time in times.items()}, "jti": str(uuid.uuid4())}
    return jwt.encode(whole, load_key(key_path), algorithm="RS256", headers={"kid": kid})
