"""Proof that whoever says that a proxy ends has started it: a secret of which the proxy itself shows the digest only.

A token does not prove that: whoever else has it could end the proxy's traffic.
"""

from __future__ import annotations

import hashlib
import hmac

DIGEST = "kuma.io/farewell"
"""The key of the node's metadata under which Envoy shows the digest."""


def digest(secret: str) -> str:
    """Returns what may be shown of a secret: in Envoy's bootstrap, and so in its dumps."""
    return hashlib.sha256(secret.encode()).hexdigest()


def proves(secret: str, shown: str) -> bool:
    """Tells whether this is the secret of which that is the digest."""
    return bool(secret and shown) and hmac.compare_digest(digest(secret).encode(), shown.encode())
