"""The CA of Envoys' administration: by it a control plane and a proxy's administrative listener know each other.

It is apart from the authorities of meshes: whoever holds the CA of a mesh may not look into proxies, nor the reverse.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import structlog
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from kuma.base.clock import Clock
from kuma.base.errors import AlreadyExists, Misconfigured, NotFound
from kuma.pki import own_ca
from kuma.pki.authority import AuthorityUnusable
from kuma.pki.pem import read_chain, read_key
from kuma.pki.x509 import CaPair, certificate_pem, key_pem
from kuma.resources import kinds
from kuma.resources.models.secret import SecretSpec
from kuma.resources.resource import Resource
from kuma.store.protocol import Create, Store

log = structlog.get_logger(__name__)

SECRET = "envoy-admin-ca"  # noqa: S105 - the name of a Secret
CONTROL_PLANE = "kuma-cp"
"""The name in the certificate by which a control plane is let in."""
_NAME = x509.Name(
    [
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Kuma"),
        x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "Mesh"),
        x509.NameAttribute(NameOID.COMMON_NAME, "Envoy Admin CA"),
    ]
)
_LIFETIME = timedelta(days=10 * 365)
_WITH_ITS_CA = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Credential:
    """A certificate with its key, and the CA by which the other side is verified; all in PEM."""

    certificate: bytes
    key: bytes = field(repr=False)
    ca: bytes


class EnvoyAdminCa:
    """Issues credentials for both sides, under a CA that is kept in a GlobalSecret: certificate and key in one."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._ca: CaPair | None = None

    async def ensure(self) -> None:
        """Load the CA, or make it if there is none.

        Raises:
            Misconfigured: what is stored is no CA.
        """
        key = kinds.GLOBAL_SECRET.key(SECRET)
        try:
            stored = await self._store.get(key)
        except NotFound:
            made = own_ca.new_ca(_NAME, self._clock.now(), _LIFETIME)
            data = certificate_pem(made.certificate) + key_pem(made.key)
            try:
                (stored,) = await self._store.transact([Create(Resource(key, SecretSpec(data=data)))])
                log.info("CA of Envoy administration created", secret=SECRET)
            except AlreadyExists:  # another control plane was faster
                stored = await self._store.get(key)
        self._ca = _opened(stored.spec.data)

    def proxy(self, address: str) -> Credential:
        """Returns the certificate that the administrative listener of the proxy at an address shows."""
        return self._issue(address, ExtendedKeyUsageOID.SERVER_AUTH)

    def control_plane(self) -> Credential:
        """Returns the certificate that a control plane shows."""
        return self._issue(CONTROL_PLANE, ExtendedKeyUsageOID.CLIENT_AUTH)

    def _issue(self, host: str, purpose: x509.ObjectIdentifier) -> Credential:
        assert self._ca is not None, "ensure comes first"
        issued = own_ca.issue(self._ca, x509.Name([]), own_ca.names([host]), purpose, self._clock.now(), _WITH_ITS_CA)
        return Credential(
            certificate_pem(issued.certificate), key_pem(issued.key), certificate_pem(self._ca.certificate)
        )


def _opened(pem: bytes) -> CaPair:
    try:
        (certificate, *_), key = read_chain(pem), read_key(pem)
    except AuthorityUnusable:
        raise Misconfigured(
            f"GlobalSecret {SECRET} has to hold a certificate and its key in PEM; "
            "delete it, and the next start makes a new one"
        ) from None
    return CaPair(certificate, key)
