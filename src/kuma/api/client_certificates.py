"""Client certificates of an HTTPS server: a lock before the door, which says nothing of who comes in."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass

from kuma.api.errors import Problem

MISSING = Problem(
    401,
    "Invalid authentication data",
    "a client certificate is required here; "
    "kumactl config control-planes add takes it with --client-cert-file and --client-key-file",
)
"""The answer to a client that shows none where one is required."""


def _unheard(address: str, reason: str) -> None:
    """Nobody wants to know who was refused."""


@dataclass(frozen=True, slots=True)
class ClientCertificates:
    """What a server asks of its clients' certificates."""

    trusted: str
    """Certificates, PEM: a client's has to be one of them, or issued by one."""
    required: bool
    on_refusal: Callable[[str, str], None] = _unheard
    """Is told the address of a client that was refused, and why."""

    def ask(self, context: ssl.SSLContext) -> None:
        """Have a server ask for certificates. One that does not hold ends the handshake.

        One that is missing does not: the client is told in words (see `is_missing`).
        """
        context.load_verify_locations(cadata=self.trusted)
        context.verify_mode = ssl.CERT_OPTIONAL
        # What is listed is trusted as it stands, be it a root, what a root has issued, or a client's own.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        # A resumed session is not verified again, and would outlive the end of its certificate.
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0

    def is_missing(self, peer: object) -> bool:
        """Whether a client whose verified certificate is `peer`, or None, has to be turned away."""
        return self.required and not peer
