"""RSA keys put together by hand, to be wrong in one number."""

from __future__ import annotations

import base64

from cryptography.hazmat.primitives.asymmetric import rsa

RSA = rsa.generate_private_key(65537, 2048)
NUMBERS = RSA.private_numbers()


def element(tag: int, content: bytes) -> bytes:
    size = len(content)
    length = bytes([size]) if size < 128 else b"\x84" + size.to_bytes(4)
    return bytes([tag]) + length + content


def integer(value: int) -> bytes:
    return element(2, value.to_bytes(value.bit_length() // 8 + 1))


def armoured(der: bytes, label: str = "RSA PRIVATE KEY") -> bytes:
    return f"-----BEGIN {label}-----\n{base64.encodebytes(der).decode()}-----END {label}-----\n".encode()


def pkcs1(key: rsa.RSAPrivateNumbers, **changed: int) -> bytes:
    named = {"n": key.public_numbers.n, "e": key.public_numbers.e, "d": key.d, "p": key.p, "q": key.q}
    named |= {"dmp1": key.dmp1, "dmq1": key.dmq1, "iqmp": key.iqmp, **changed}
    return element(0x30, b"".join(map(integer, (0, *named.values()))))
