"""Leaves issued per second on one core, beside what the crypto library alone can do.

python -m benchmarks.bench_issue
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from kuma.authorities import builtin
from kuma.base.clock import SystemClock
from kuma.pki import issuer
from kuma.pki.authority import LocalAuthority
from kuma.pki.x509 import PrivateKey
from kuma.resources.models.mesh import DEFAULT_LEAF_LIFETIME, CaCert, Conf

SECONDS = 2.0
TARGET, SHARE = 4000, 0.2


def rate(work: Callable[[], object]) -> float:
    """Measures how often `work` is done in a second."""
    done, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < SECONDS:
        work()
        done += 1
    return done / elapsed


def raw(key: PrivateKey) -> float:
    """The library's limit: a new P-256 key and one signature of the root's kind."""
    message = b"x" * 500

    def work() -> None:
        ec.generate_private_key(ec.SECP256R1())
        if isinstance(key, rsa.RSAPrivateKey):
            key.sign(message, padding.PKCS1v15(), hashes.SHA256())
        elif isinstance(key, ec.EllipticCurvePrivateKey):
            key.sign(message, ec.ECDSA(hashes.SHA256()))
        else:
            key.sign(message)

    return rate(work)


async def issued(authority: LocalAuthority) -> float:
    """Leaves per second, from the request to the PEM of chain and key."""
    clock, done, start = SystemClock(), 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < SECONDS:
        await issuer.issue(authority, ("spiffe://default/web",), DEFAULT_LEAF_LIFETIME, clock.now())
        done += 1
    return done / elapsed


def main() -> None:
    """Print the figures."""
    print("Leaves issued per second (ECDSA P-256 leaf, one core)")
    for name, conf in (("ECDSA P-256", Conf()), ("RSA-2048", Conf(ca_cert=CaCert(rsa_bits=2048)))):
        pair = asyncio.run(builtin.create_root("default", conf, SystemClock()))
        limit, ours = raw(pair.key), asyncio.run(issued(LocalAuthority("ca-1", pair)))
        print(f"  {name + ' root:':<18}{ours:>8,.0f}   ", end="")
        print(f"key generation + signature alone: {limit:>8,.0f}   {ours / limit:.0%}")
    print(f"  reach under an ECDSA root: {TARGET:,}, and {SHARE:.0%} of the raw rate\n")


if __name__ == "__main__":
    main()
