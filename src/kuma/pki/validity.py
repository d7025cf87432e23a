"""How long a server's certificate holds, and when people are to be told that it ends."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

from cryptography import x509

_NOTICE = timedelta(days=14)
"""How long before its end at the earliest; in the last fifth of its life if that is shorter: who renews a certificate
does so before, cert-manager when a third is left."""


class Validity(NamedTuple):
    """`ends` is when nobody trusts it any more, `warned` when somebody should have replaced it."""

    warned: datetime
    ends: datetime

    @classmethod
    def of(cls, certificate: x509.Certificate) -> Validity:
        """Returns the validity of this certificate, whatever is above it."""
        begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        return cls(ends - min(_NOTICE, (ends - begins) / 5), ends)

    def told(self, now: datetime) -> str:
        """Returns what is to be said of it now; nothing while it is young enough."""
        if self.ends <= now:
            return f"the servers' certificate ended at {self.ends:%Y-%m-%d %H:%M} UTC: nobody trusts it any more"
        if self.warned <= now:
            return f"the servers' certificate ends at {self.ends:%Y-%m-%d %H:%M} UTC, and has not been replaced"
        return ""
