"""Authorities whose key this process holds, signing where that keeps nobody waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from kuma.pki.authority import LocalAuthority, SignedLeaf, SignRequest
from kuma.pki.x509 import CaPair

_QUICK_RSA = 2048
"""Bits. A signature takes half a millisecond with such a key, some with 4096, and 30 with 8192."""


def local_authority(name: str, pair: CaPair, chain: Sequence[x509.Certificate] = ()) -> LocalAuthority:
    """Returns the authority with a key and its certificate; `chain` is as for `LocalAuthority`."""
    is_slow = isinstance(pair.key, rsa.RSAPrivateKey) and pair.key.key_size > _QUICK_RSA
    return (_SlowAuthority if is_slow else LocalAuthority)(name, pair, chain)


class _SlowAuthority(LocalAuthority):
    """One that takes long to sign, and does so beside the event loop.

    One leaf after the other: those of a whole mesh would have all threads, and everybody else would wait for one.
    """

    def __init__(self, name: str, pair: CaPair, chain: Sequence[x509.Certificate] = ()) -> None:
        super().__init__(name, pair, chain)
        self._one = asyncio.Lock()

    async def sign(self, request: SignRequest) -> SignedLeaf:
        async with self._one:
            return await asyncio.to_thread(self.signed, request)
