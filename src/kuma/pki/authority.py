"""Protocol of a CA backend: an authority that signs, and the roots that verify what it signed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from cryptography import x509

from kuma.base.errors import KumaError
from kuma.pki.x509 import CaPair, LeafBuilder, PublicKey, certificate_pem, is_self_signed


class AuthorityUnusable(KumaError):
    """An authority cannot be opened: what it is made of is missing or broken. The text names the remedy."""


class NotLoaded(AuthorityUnusable):
    """Parts of it are not there: `reasons` has each, `cert` or `key`, by its name in the Mesh."""

    def __init__(self, reasons: Mapping[str, str]) -> None:
        super().__init__("; ".join(dict.fromkeys(reasons.values())))
        self.reasons = reasons


@dataclass(frozen=True, slots=True)
class SignRequest:
    """A leaf to be signed."""

    public_key: PublicKey
    uris: tuple[str, ...]
    not_before: datetime
    not_after: datetime


@dataclass(frozen=True, slots=True)
class SignedLeaf:
    """A signed leaf, and the intermediates that lead to a root of the trust bundle, closest first."""

    leaf: x509.Certificate
    intermediates: tuple[x509.Certificate, ...] = ()


class Authority(Protocol):
    """One CA backend of one mesh, ready to sign."""

    @property
    def name(self) -> str:
        """The backend's name."""
        ...

    @property
    def fingerprint(self) -> str:
        """Tells authorities apart: two that sign differently, or with other roots, differ in this."""
        ...

    @property
    def roots_pem(self) -> bytes:
        """The roots that this authority adds to the trust bundle."""
        ...

    @property
    def not_before(self) -> datetime:
        """Begin of the signing certificate's validity."""
        ...

    @property
    def not_after(self) -> datetime:
        """End of the signing certificate's validity; no leaf may outlive it."""
        ...

    async def sign(self, request: SignRequest) -> SignedLeaf:
        """Sign a leaf.

        Raises:
            KumaError: it cannot; the text says why.
        """
        ...


class LocalAuthority:
    """An authority whose key this process holds.

    `chain` leads from its own certificate upwards. What is self-signed in it (or, without that, the topmost) is the
    root that verifiers trust; the rest is presented with every leaf.
    """

    def __init__(self, name: str, pair: CaPair, chain: Sequence[x509.Certificate] = ()) -> None:
        self._name = name
        whole = tuple(chain) or (pair.certificate,)
        roots = tuple(certificate for certificate in whole if is_self_signed(certificate)) or whole[-1:]
        self._intermediates = tuple(c for c in whole if c not in roots)
        self._roots_pem = b"".join(certificate_pem(root) for root in roots)
        signing = b"".join(certificate_pem(certificate) for certificate in (pair.certificate, *whole))
        self._fingerprint = hashlib.sha256(name.encode() + b"\0" + signing).hexdigest()
        self._not_before = pair.certificate.not_valid_before_utc
        self._not_after = min(certificate.not_valid_after_utc for certificate in whole)
        self._builder = LeafBuilder(pair)

    @property
    def name(self) -> str:
        return self._name

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    @property
    def roots_pem(self) -> bytes:
        return self._roots_pem

    @property
    def not_before(self) -> datetime:
        return self._not_before

    @property
    def not_after(self) -> datetime:
        return self._not_after

    async def sign(self, request: SignRequest) -> SignedLeaf:
        return self.signed(request)

    def signed(self, request: SignRequest) -> SignedLeaf:
        """Returns the leaf, signed by whichever thread this is."""
        leaf = self._builder.build(request.public_key, request.uris, request.not_before, request.not_after)
        return SignedLeaf(leaf, self._intermediates)
