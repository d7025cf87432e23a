"""Secrets that tokens depend on are checked when they are written."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from kuma.admission.secret_rules import SecretRules
from kuma.admission.token_rules import TokenRules
from kuma.base.clock import SystemClock
from kuma.base.errors import InvalidResource
from kuma.resources import kinds
from kuma.resources.models.mesh import MeshSpec
from kuma.resources.models.secret import SecretSpec
from kuma.resources.resource import Key, Resource
from kuma.store.manager import ResourceManager
from kuma.store.sql.embedded.sqlite import open_sqlite
from tests.fakes.keys import NUMBERS, RSA, armoured, pkcs1

KEYS = [
    kinds.GLOBAL_SECRET.key("user-token-signing-key-2"),
    kinds.GLOBAL_SECRET.key("user-token-signing-key-0002"),
    kinds.SECRET.key("dataplane-token-signing-key-default-1", "default"),
]
REVOCATIONS = [
    kinds.GLOBAL_SECRET.key("user-token-revocations"),
    kinds.SECRET.key("dataplane-token-revocations-default", "default"),
]


def pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )


GOOD = pem(RSA)
BAD = {
    "nothing": (b"", "RSA key in PEM"),
    "text": (b"my key", "RSA key in PEM"),
    "elliptic": (pem(ec.generate_private_key(ec.SECP256R1())), "RSA key in PEM"),
    "short": (pem(rsa.generate_private_key(65537, 1024)), "1024 bits; 2048 are needed"),
    "huge": (armoured(pkcs1(NUMBERS, n=1 << 16383)), "16384 bits is too large; .* for tokens 4096 at most"),
    "public": (
        RSA.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
        "RSA key in PEM",
    ),
}


async def put(directory: Path, key: Key, data: bytes) -> None:
    store = await open_sqlite(directory / "kuma.db", SystemClock())
    rules = {"GlobalSecret": TokenRules(), "Secret": TokenRules(SecretRules(SystemClock()))}
    manager = ResourceManager(store, rules)
    try:
        await manager.put(Resource(kinds.MESH.key("default"), MeshSpec()))
        await manager.put(Resource(key, SecretSpec(data=data)))
    finally:
        await store.close()


@pytest.mark.parametrize("key", KEYS, ids=str)
@pytest.mark.parametrize(("data", "reason"), BAD.values(), ids=list(BAD))
async def test_a_signing_key_can_sign(tmp_path: Path, key: Key, data: bytes, reason: str) -> None:
    with pytest.raises(InvalidResource, match=reason):
        await put(tmp_path, key, data)
    await put(tmp_path, key, GOOD)


async def test_a_signing_key_signs_quickly(tmp_path: Path) -> None:
    long = pem(rsa.generate_private_key(65537, 4104))  # here, and once: it takes a second
    for key in KEYS:
        with pytest.raises(InvalidResource, match="4104 bits; 4096 are the most"):
            await put(tmp_path, key, long)


@pytest.mark.parametrize("key", REVOCATIONS, ids=str)
async def test_a_list_of_revoked_tokens_can_be_read(tmp_path: Path, key: Key) -> None:
    for wrong in (b"\xff\xfe", b"a b, c", b'{"a": 1, "b": 2}', "é".encode(), b"x" * 300):
        with pytest.raises(InvalidResource, match="separated by commas"):
            await put(tmp_path, key, wrong)
    for right in (b"", b"\n", b"0e120ec9-6b42-495d-9758-07b59fe86fb9,other, third\n"):
        await put(tmp_path, key, right)


async def test_other_secrets_hold_what_they_like(tmp_path: Path) -> None:
    await put(tmp_path, kinds.GLOBAL_SECRET.key("mine"), b"\xff")
    await put(tmp_path, kinds.SECRET.key("mine", "default"), b"")
