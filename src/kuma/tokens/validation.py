"""What tokens are verified by besides the signing keys in Secrets: public keys that the settings name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

PublicKeys = Mapping[str, rsa.RSAPublicKey]
"""By their numbers or names, which a token says as its `kid`."""
_SMALLEST, _LARGEST = 2048, 8192


@dataclass(frozen=True, slots=True)
class Validation:
    """Rules for tokens of one kind. `by_mesh` has the keys of a mesh's dataplane tokens, `keys` those of all others.

    Without `uses_secrets` the keys in Secrets verify nothing. Without `issues` no token is issued by the control plane.
    """

    uses_secrets: bool = True
    issues: bool = True
    keys: PublicKeys = field(default_factory=dict)
    by_mesh: Mapping[str, PublicKeys] = field(default_factory=dict)

    def of(self, mesh: str) -> PublicKeys:
        """Returns the public keys of a mesh."""
        return self.by_mesh.get(mesh, {})


STANDARD = Validation()
NOT_ISSUED = (
    "issuing tokens by this control plane is disabled (enableIssuer: false); sign with a key of your own: "
    "--signing-key-path and --kid of kumactl"
)


def public_key(pem: bytes) -> rsa.RSAPublicKey:
    """Reads a public key in PEM, of PKCS#1 or SubjectPublicKeyInfo.

    Raises:
        ValueError: it is none, or one that tokens should not be verified by; says what to give instead.
    """
    if b"PRIVATE KEY" in pem:
        raise ValueError("is a private key; give the public one, which `kumactl generate public-key` prints")
    try:
        found = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("has to be an RSA public key in PEM, as `kumactl generate public-key` prints it") from None
    if not isinstance(found, rsa.RSAPublicKey):
        raise ValueError("has to be an RSA key: tokens are signed with RS256")
    if not _SMALLEST <= found.key_size <= _LARGEST:
        raise ValueError(f"has {found.key_size} bits; from {_SMALLEST} to {_LARGEST} are taken")
    return found
