"""The CA of the control plane: a file of the user's, which Envoy is given anew whenever it has something else in it.

It may hold several CAs: during a change the old and the new one.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import structlog
from cryptography import x509

from kuma.agent import private_directory
from kuma.base import files
from kuma.base.clock import Clock
from kuma.base.errors import Misconfigured

log = structlog.get_logger(__name__)

SECRET = "control_plane_ca"  # noqa: S105 - the name of a secret
_POLL = 1.0
"""Seconds between two looks at the file, which may be a link that is set elsewhere."""
_TYPE = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
_PREFIX = "kuma-dp-ca-"


class TrustedCa:
    """A file for Envoy, which reads it again whenever it is replaced (xDS from a file)."""

    def __init__(self, file: Path, directory: Path) -> None:
        self._file = file
        self._complaint = ""
        self.path = directory / "ca.json"
        self._write(files.content(file).decode())

    async def follow(self, clock: Clock) -> None:
        """Gives Envoy what the user's file holds whenever that is something else, until cancelled."""
        while True:
            await clock.sleep(_POLL)
            self.look()

    def look(self) -> None:
        """Takes up what the user's file holds; what is no certificate, or half of one, leaves the CA as it is."""
        try:
            pem = files.content(self._file).decode()
            if pem == self._pem:
                return
            x509.load_pem_x509_certificates(pem.encode())
            self._write(pem)
        except (OSError, ValueError) as error:
            if str(error) != self._complaint:
                self._complaint = str(error)
                log.warning("the CA of the control plane cannot be taken up; the last one stays", reason=str(error))
            return
        self._complaint = ""
        log.info("the CA of the control plane has been replaced", file=str(self._file))

    def _write(self, pem: str) -> None:
        secret = {
            "@type": _TYPE,
            "name": SECRET,
            "validationContext": {"trustedCa": {"inlineString": pem}},
        }
        files.replace(self.path, json.dumps({"resources": [secret]}).encode())
        self._pem = pem


@contextlib.contextmanager
def followed(file: Path | None, place: Path) -> Iterator[TrustedCa | None]:
    """Follows a CA file for as long as the block lasts; None if there is none, or it cannot change, as in a pipe.

    What Envoy reads is in a directory in `place`.

    Raises:
        Misconfigured: there is no place for what Envoy reads.
    """
    if file is None or not file.is_file() or file.absolute().is_relative_to("/dev"):
        yield None
        return
    with contextlib.ExitStack() as stack:
        try:
            made = TrustedCa(file, stack.enter_context(private_directory.opened(place, _PREFIX)))
        except OSError as error:
            raise Misconfigured(f"no place for the CA that Envoy reads: {error.strerror}") from None
        yield made


def with_ca_from(bootstrap: bytes, file: Path) -> bytes:
    """Has Envoy verify the control plane by the CA in a file, and again by what is there whenever that is replaced."""
    found = json.loads(bootstrap)
    source = {"path": str(file), "watchedDirectory": {"path": str(file.parent)}}
    reference = {"name": SECRET, "sdsConfig": {"pathConfigSource": source, "resourceApiVersion": "V3"}}
    for context in _contexts(found):
        fixed = context.pop("validationContext")
        fixed.pop("trustedCa", None)
        context["combinedValidationContext"] = {
            "defaultValidationContext": fixed,
            "validationContextSdsSecretConfig": reference,
        }
    return json.dumps(found).encode()


def _contexts(bootstrap: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The TLS contexts by which Envoy verifies servers that are in its bootstrap: control planes only."""
    for cluster in bootstrap.get("staticResources", {}).get("clusters", ()):
        common = cluster.get("transportSocket", {}).get("typedConfig", {}).get("commonTlsContext", {})
        if "validationContext" in common:
            yield common
