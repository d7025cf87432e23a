"""Keys are measured before they are read, and read without the tests that take minutes."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from kuma.base.tls import private_keys
from kuma.base.tls.private_keys import TooLarge, UnusableKey
from tests.fakes.keys import NUMBERS, RSA, armoured, element, integer, pkcs1

FORMATS = (serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL)


def pem(key: PrivateKeyTypes, form: serialization.PrivateFormat = FORMATS[0]) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def pkcs8(inner: bytes) -> bytes:
    rsa_encryption = bytes.fromhex("300d06092a864886f70d0101010500")
    return armoured(element(0x30, integer(0) + rsa_encryption + element(4, inner)), "PRIVATE KEY")


@pytest.mark.parametrize(
    "key", [RSA, ec.generate_private_key(ec.SECP384R1()), ed25519.Ed25519PrivateKey.generate()], ids=["r", "e", "ed"]
)
def test_what_can_be_used_is_read_in_every_form(key: PrivateKeyTypes) -> None:
    forms = FORMATS[: 1 if isinstance(key, ed25519.Ed25519PrivateKey) else 2]
    for form in forms:
        found = private_keys.load(b"a line before\n" + pem(key, form) + pem(RSA))
        assert pem(found) == pem(key)


def test_many_elliptic_keys_are_read_whatever_their_octets_look_like() -> None:
    for number in range(1, 2**12, 7):
        key = ec.derive_private_key((0x30 << 248) + number * 2**232 + number, ec.SECP256R1())
        assert pem(private_keys.load(pem(key))) == pem(key)


def test_a_key_that_is_read_signs() -> None:
    found = private_keys.load(pem(RSA))
    assert isinstance(found, rsa.RSAPrivateKey)
    signature = found.sign(b"x", padding.PKCS1v15(), hashes.SHA256())
    RSA.public_key().verify(signature, b"x", padding.PKCS1v15(), hashes.SHA256())


@pytest.mark.parametrize("part", ["n", "e", "d", "p", "q", "dmp1", "dmq1", "iqmp"])
def test_a_number_that_is_too_large_is_seen_before_the_key_is_read(part: str) -> None:
    """Whichever it is: the library would test it for being prime, or compute with it."""
    inner = pkcs1(NUMBERS, **{part: (1 << 16383) + 1})
    for text in (armoured(inner), pkcs8(inner)):
        with pytest.raises(TooLarge, match="16384 bits is too large; use 8192 at most"):
            private_keys.load(text)


def test_a_very_long_text_is_not_even_decoded() -> None:
    with pytest.raises(TooLarge, match="characters; 16,384 are the most"):
        private_keys.load(armoured(b"\x30" * 600_000))


@pytest.mark.parametrize("part", ["n", "d", "p", "q", "dmp1", "dmq1", "iqmp"])
def test_parts_that_do_not_belong_together_are_no_key(part: str) -> None:
    right = getattr(NUMBERS.public_numbers if part == "n" else NUMBERS, part)
    for text in (armoured(pkcs1(NUMBERS, **{part: right - 2})), pkcs8(pkcs1(NUMBERS, **{part: right - 2}))):
        with pytest.raises(UnusableKey):
            private_keys.load(text)


@pytest.mark.parametrize(
    "text",
    [
        b"", b"-----BEGIN PRIVATE KEY-----", armoured(b""), armoured(b"\x30\x84\xff\xff\xff\xff"), armoured(b"\x30"),
        armoured(b"\x02\x81"), pem(RSA)[:-40], pem(RSA).replace(b"BEGIN PRIVATE", b"BEGIN PUBLIC"),
        RSA.private_bytes(
            serialization.Encoding.PEM, FORMATS[0], serialization.BestAvailableEncryption(b"a password")
        ),
    ],
)  # fmt: skip
def test_what_is_no_key_is_said_to_be_none(text: bytes) -> None:
    with pytest.raises(UnusableKey):
        private_keys.load(text)


def test_a_key_of_another_kind_is_read_for_its_owner_to_refuse() -> None:
    assert isinstance(private_keys.load(pem(dsa.generate_private_key(2048))), dsa.DSAPrivateKey)
