"""The certificate of the control plane's servers on Kubernetes: one for all control planes, kept in Secrets.

The CA is made once, so that a proxy that was given it goes on knowing the control plane. What it issues is renewed by
whichever control plane finds it old, as it starts or while it runs; the others take up what that one has made.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import structlog
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from kuma.base import aio, files
from kuma.base.clock import Clock
from kuma.base.errors import Conflict, Misconfigured, Unavailable
from kuma.kubernetes.api.client import ApiClient, ApiError, Object
from kuma.kubernetes.objects.forms import TLS_TYPE
from kuma.pki import own_ca, pem
from kuma.pki.authority import AuthorityUnusable
from kuma.pki.x509 import CaPair, certificate_pem, key_pem

log = structlog.get_logger(__name__)

CERTIFICATE, CA = "kuma-tls-cert", "kuma-tls-ca"
"""The names of the Secrets: of the servers' certificate, as in the original, and of the CA above it."""
CA_LIFETIME, LIFETIME = timedelta(days=10 * 365), timedelta(days=397)
_KEPT = timedelta(days=30)
_ATTEMPTS = 10
_LOOK = timedelta(hours=6).total_seconds()
_RETRY = aio.Backoff(first=60.0, last=_LOOK)


class SharedCertificate:
    """The certificate, made if it is not there."""

    def __init__(self, client: ApiClient, namespace: str, hosts: Sequence[str]) -> None:
        self._client = client
        self.metrics = client.metrics
        self._path = f"/api/v1/namespaces/{namespace}/secrets"
        self._names = own_ca.names(hosts)

    async def ensure(self, directory: Path, now: datetime) -> tuple[Path, Path, Path]:
        """The files of chain, key and CA, which are written to a directory.

        Raises:
            Misconfigured: what is in the Secrets is something else, or the directory cannot be written.
            Unavailable: the API server does not answer, or others keep writing.
        """
        for _ in range(_ATTEMPTS):
            try:
                return _written(directory, await self._ensure(now))
            except Conflict:
                continue  # another control plane was faster
            except ApiError as error:
                raise Unavailable(f"the Secrets {CERTIFICATE} and {CA} cannot be used: {error}") from None
        raise Unavailable(f"the Secrets {CERTIFICATE} and {CA} are being changed by others all the time")

    async def _ensure(self, now: datetime) -> Mapping[str, bytes]:
        ca = await self._ca(now)
        found = await self._client.find(f"{self._path}/{CERTIFICATE}")
        if found is not None and self._will_do(_data(found), ca, now):
            return _data(found)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kuma-control-plane")])
        made = own_ca.issue(ca, subject, self._names, ExtendedKeyUsageOID.SERVER_AUTH, now, now + LIFETIME)
        data = {
            "tls.crt": certificate_pem(made.certificate), "tls.key": key_pem(made.key),
            "ca.crt": certificate_pem(ca.certificate),
        }  # fmt: skip
        await self._write(CERTIFICATE, data, found)
        return data

    async def _ca(self, now: datetime) -> CaPair:
        found = await self._client.find(f"{self._path}/{CA}")
        if found is not None:
            return _opened(_data(found), CA)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Kuma control plane CA")])
        made = own_ca.new_ca(name, now, CA_LIFETIME)
        await self._write(CA, {"tls.crt": certificate_pem(made.certificate), "tls.key": key_pem(made.key)}, None)
        return made

    def _will_do(self, data: Mapping[str, bytes], ca: CaPair, now: datetime) -> bool:
        """Tells whether a certificate is of this CA, has our names, and is young enough to run with."""
        try:
            found = _opened(data, CERTIFICATE).certificate
            found.verify_directly_issued_by(ca.certificate)
            names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except (Misconfigured, InvalidSignature, ValueError, TypeError, x509.ExtensionNotFound):
            return False
        return names == self._names and found.not_valid_before_utc <= now < found.not_valid_before_utc + _KEPT

    async def _write(self, name: str, data: Mapping[str, bytes], before: Object | None) -> None:
        metadata = before["metadata"] if before else {"name": name}
        encoded = {field: base64.b64encode(value).decode() for field, value in data.items()}
        body = {"apiVersion": "v1", "kind": "Secret", "type": TLS_TYPE, "metadata": metadata, "data": encoded}
        try:
            if before is None:
                await self._client.create(self._path, body)
            else:
                await self._client.replace(f"{self._path}/{name}", body)
        except ApiError as error:
            if error.code == 409:
                raise Conflict(f"Secret {name} has been written by another control plane") from None
            raise


class Renewal:
    """Renews the certificate in time, and writes what others have renewed to the files that the servers look at."""

    def __init__(self, shared: SharedCertificate, directory: Path, clock: Clock) -> None:
        self._shared = shared
        self._directory = directory
        self._clock = clock

    async def run(self) -> None:
        """Look until cancelled."""
        failures = 0
        while True:
            await self._clock.sleep(_RETRY.delay(failures) if failures else _LOOK)
            try:
                await self._shared.ensure(self._directory, self._clock.now())
                failures = 0
            except (Misconfigured, Unavailable) as error:
                failures += 1
                self._shared.metrics.controller_failures.labels("server certificate").inc()
                log.error("the control plane's certificate cannot be renewed now", reason=str(error))


def _data(found: Object) -> dict[str, bytes]:
    try:
        return {name: base64.b64decode(value) for name, value in (found.get("data") or {}).items()}
    except binascii.Error:
        return {}


def _opened(data: Mapping[str, bytes], name: str) -> CaPair:
    try:
        found = CaPair(pem.read_chain(data.get("tls.crt", b""))[0], pem.read_key(data.get("tls.key", b"")))
        pem.check_pair(found.certificate, found.key)
    except AuthorityUnusable as error:
        raise Misconfigured(
            f"Secret {name} has to hold a certificate and its key, tls.crt and tls.key ({error}); put it back, or "
            "delete it and restart the control plane, and then all Pods that have a sidecar"
        ) from None
    return found


def _written(directory: Path, data: Mapping[str, bytes]) -> tuple[Path, Path, Path]:
    chain, key, ca = directory / "tls.crt", directory / "tls.key", directory / "ca.crt"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        files.replace(key, data["tls.key"])
        files.replace(chain, data["tls.crt"], mode=0o644)
        files.replace(ca, data["ca.crt"], mode=0o644)
    except OSError as error:
        raise Misconfigured(f"cannot keep the control plane's certificate in {directory}: {error.strerror}") from None
    except KeyError as error:
        raise Misconfigured(f"Secret {CERTIFICATE} has no {error.args[0]}") from None
    return chain, key, ca
