"""Says in one line why a proxy is out of contact, when it is that it does not trust the control plane any more."""

from __future__ import annotations

import asyncio
import contextlib
import ssl

import httpx
import structlog

from kuma.agent import envoy
from kuma.agent.bootstrap_client import ControlPlaneAddress
from kuma.base.clock import Clock
from kuma.base.errors import Misconfigured
from kuma.base.tls import handshakes
from kuma.base.tls.trust import NOBODY
from kuma.base.values import urls

log = structlog.get_logger(__name__)

_POLL = 10.0
"""Seconds between two looks; Envoy tries again every few seconds."""
_PATIENCE = 5.0
"""Seconds that a handshake may take."""


class LostTrust:
    """Tries a handshake of its own while Envoy is out of contact, by the CA that is in the file now."""

    def __init__(self, control_plane: ControlPlaneAddress, clock: Clock) -> None:
        self._control_plane = control_plane
        self._clock = clock
        self._told = ""

    async def run(self, admin_url: str) -> None:
        """Watch until cancelled whether Envoy, whose administration is at `admin_url`, is in contact."""
        async with httpx.AsyncClient(base_url=admin_url, verify=NOBODY, timeout=2.0, trust_env=False) as admin:
            while True:
                await self._clock.sleep(_POLL)
                await self.look(is_in_contact=await envoy.has_stream(admin))

    async def look(self, *, is_in_contact: bool) -> None:
        """Tells once of each reason, and again when it has been in contact meanwhile."""
        reason = "" if is_in_contact else await self._reason()
        if reason and reason != self._told:
            log.error(
                "the control plane shows a certificate that is not trusted. If its CA is another now, put that into "
                f"{self._control_plane.ca_file or 'a file for --ca-cert-file'}, beside the old one; nothing has to be "
                "restarted",
                address=self._control_plane.address,
                reason=reason,
            )
        self._told = reason

    async def _reason(self) -> str:
        """Returns what is wrong with the certificate; empty if nothing is, or nobody answers."""
        try:
            parts = urls.split(self._control_plane.address, "https")
            verification = self._control_plane.verification()
            context = verification if isinstance(verification, ssl.SSLContext) else ssl.create_default_context()
            async with asyncio.timeout(_PATIENCE):
                _, writer = await asyncio.open_connection(parts.hostname, parts.port or 443, ssl=context)
        except (OSError, TimeoutError, Misconfigured) as error:
            return handshakes.untrusted(error)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return ""
