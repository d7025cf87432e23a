"""Incoming calls of proxies: what admits their streams, whatever service they are for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kuma.base.audit import Refusals
from kuma.base.errors import Unauthenticated
from kuma.xds.stream.front import Front
from kuma.xds.stream.proxy_authentication import Authenticator
from kuma.xds.stream.stream_limits import StreamLimiter


@dataclass(frozen=True, slots=True)
class StreamAdmission:
    """Collaborators that admit streams: authentication, limits, and the record of refusals."""

    authenticator: Authenticator
    limiter: StreamLimiter
    refusals: Refusals
    front: Front


def token_of(context: Any) -> str:
    """Returns the credential of a call; empty if it has none.

    Raises:
        Unauthenticated: it has several.
    """
    values = [value for key, value in context.invocation_metadata() or () if key == "authorization"]
    if len(values) > 1:
        raise Unauthenticated("more than one authorization value")
    return str(values[0]).removeprefix("Bearer ").strip() if values else ""
