"""Verifies client certificates of an HTTPS server; does not authenticate users."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from kuma.api.http.errors import Problem
from kuma.base.clock import Clock, SystemClock

_TITLE = "Invalid authentication data"
_MISSING = (
    "a client certificate is required here; "
    "kumactl config control-planes add takes it with --client-cert-file and --client-key-file"
)


def _ignored(address: str, reason: str) -> None:
    """Ignores the reason of a refusal where nobody has asked for it."""


@dataclass(frozen=True, slots=True)
class ClientCertificates:
    """Settings for verifying client certificates of one server."""

    trusted: str
    """Certificates, PEM: a client's has to be one of them, or issued by one."""
    required: bool
    on_refusal: Callable[[str, str], None] = _ignored
    """Is told the address of a client that was refused, and why."""
    clock: Clock = SystemClock()  # noqa: RUF009 - it has no state

    def ask(self, context: ssl.SSLContext) -> None:
        """Have a server ask for certificates. One that does not hold ends the handshake.

        One that is missing does not: the client is told in words (see `refusal`).
        """
        context.load_verify_locations(cadata=self.trusted)
        context.verify_mode = ssl.CERT_OPTIONAL
        # What is listed is trusted as it stands, be it a root, what a root has issued, or a client's own.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN

    def refusal(self, peer: Mapping[str, Any] | None) -> Problem | None:
        """Returns why a client that has shown `peer`, as the ssl module describes it, is refused; None if it is not.

        A certificate may have ended since: connections are kept, and sessions are resumed without another look.
        """
        if not peer:
            return Problem(401, _TITLE, _MISSING) if self.required else None
        if ssl.cert_time_to_seconds(peer["notAfter"]) < self.clock.now().timestamp():
            return Problem(401, _TITLE, "the client certificate has ended")
        return None
