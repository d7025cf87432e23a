"""Private keys that others have made, read from PEM at a cost that is known before.

The library tests the primes of an RSA key while it holds up the whole process: four seconds at 8192 bits, a minute at
16,384. So the size is looked at first, in the encoding itself, and the key is read without that test. That its parts
belong together is computed here; that its certificates and signatures verify is seen where it is used.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import re
from collections.abc import Iterator
from math import lcm

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

LARGEST_RSA = 8192
"""Bits. Envoy's TLS library refuses larger keys."""
_LARGEST_TEXT = 16 * 1024
"""Characters of a key in PEM; one of 8192 bits has 6,400."""
_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]*PRIVATE KEY)-----([A-Za-z0-9+/=\s]*)-----END \1-----")
_INTEGER, _OCTETS, _SEQUENCE = 0x02, 0x04, 0x30
_DEEPEST = 4
"""PKCS#8 has the integers of an RSA key in a sequence within octets within a sequence (RFC 5208 §5, RFC 8017 A.1.2)."""


class UnusableKey(ValueError):
    """There is no private key that can be read; without a word of what was there."""


class TooLarge(UnusableKey):
    """Raised for a key with which it would take too long to compute; the text says how large it is and may be."""


def load(pem: bytes) -> PrivateKeyTypes:
    """Returns the first private key in `pem`.

    Raises:
        TooLarge: it has more than `LARGEST_RSA` bits.
        UnusableKey: there is none, it is encrypted, or its parts do not belong together.
    """
    found = _BLOCK.search(pem)
    if found is None:
        raise UnusableKey("no private key in PEM")
    if len(found[0]) > _LARGEST_TEXT:
        raise TooLarge(f"the key has {len(found[0]):,} characters; {_LARGEST_TEXT:,} are the most")
    try:
        bits = max(_integers(base64.b64decode(b"".join(found[2].split()), validate=True)), default=0)
    except (binascii.Error, IndexError):
        raise UnusableKey("not a private key") from None
    if bits > LARGEST_RSA:
        raise TooLarge(f"the RSA key of {bits} bits is too large; use {LARGEST_RSA} at most")
    try:
        key = serialization.load_pem_private_key(found[0], None, unsafe_skip_rsa_key_validation=True)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise UnusableKey("not a private key, or an encrypted one") from None
    if isinstance(key, rsa.RSAPrivateKey) and not _belongs_together(key.private_numbers()):
        raise UnusableKey("the parts of the RSA key do not belong together")
    return key


def _belongs_together(key: rsa.RSAPrivateNumbers) -> bool:
    """RFC 8017 §3.2, but for that the primes are prime."""
    public, order = key.public_numbers, lcm(key.p - 1, key.q - 1)
    return (
        min(key.p, key.q) > 2
        and public.n == key.p * key.q
        and public.e > 2
        and (public.e * key.d) % order == 1
        and key.dmp1 == key.d % (key.p - 1)
        and key.dmq1 == key.d % (key.q - 1)
        and (key.iqmp * key.q) % key.p == 1
    )


def _integers(der: bytes, depth: int = 0) -> Iterator[int]:
    """Yields the sizes in bits of all integers in a DER encoding (X.690 §8.1).

    Raises:
        IndexError: it ends too early.
    """
    at = 0
    while at < len(der):
        tag, length, at = der[at], der[at + 1], at + 2
        if length & 0x80:
            size = length & 0x7F
            length, at = int.from_bytes(der[at : at + size]), at + size
        content, at = der[at : at + length], at + length
        if at > len(der):
            raise IndexError("an element ends after the whole")
        if tag == _INTEGER:
            yield int.from_bytes(content).bit_length()
        elif tag == _SEQUENCE and depth < _DEEPEST:
            yield from _integers(content, depth + 1)
        elif tag == _OCTETS and content[:1] == bytes((_SEQUENCE,)) and depth < _DEEPEST:
            with contextlib.suppress(IndexError):  # not an encoding: the octets of an elliptic curve's key, say
                yield from tuple(_integers(content, depth + 1))
