"""Incoming calls of proxies: what admits their streams, whatever service they are for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc

from kuma.base.audit import Refusals
from kuma.base.errors import AccessDenied, InvalidResource, KumaError, Unauthenticated
from kuma.resources.resource import Key
from kuma.tokens.dataplane_tokens import DataplaneClaims
from kuma.xds.stream.front import Front
from kuma.xds.stream.proxy_authentication import Authenticator
from kuma.xds.stream.stream_limits import StreamLimiter, TooMany

_STATUS = {
    Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    AccessDenied: grpc.StatusCode.PERMISSION_DENIED,
    InvalidResource: grpc.StatusCode.INVALID_ARGUMENT,
    TooMany: grpc.StatusCode.RESOURCE_EXHAUSTED,
}


def status_of(error: KumaError) -> grpc.StatusCode:
    """Returns the status of a stream that ends for this reason; UNAVAILABLE means that trying again may help."""
    return next((code for kind, code in _STATUS.items() if isinstance(error, kind)), grpc.StatusCode.UNAVAILABLE)


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


_LARGEST_FRAME = 1 << 20
"""Bytes of one message of a stream beside discovery; what Envoy sends there is a hundredth of it."""


def check_size(frame: bytes) -> bytes:
    """Returns a message that is not too large to be parsed.

    Raises:
        InvalidResource: it is larger than any that an Envoy sends.
    """
    if len(frame) > _LARGEST_FRAME:
        raise InvalidResource.of("", f"the message is larger than {_LARGEST_FRAME} bytes")
    return frame


class SideStream:
    """A stream of a proxy beside that of discovery, with the token that it was opened with."""

    def __init__(self, key: Key, credential: str, token: DataplaneClaims) -> None:
        self.key = key
        self.credential = credential
        self.token = token
        self._scope = asyncio.timeout(None)
        self._end: KumaError | None = None

    def end(self, reason: KumaError) -> None:
        """Ends the stream, because its token no longer holds."""
        if self._end is None:
            self._end = reason
            self._scope.reschedule(asyncio.get_running_loop().time())

    @asynccontextmanager
    async def until_ended(self) -> AsyncIterator[None]:
        """Surrounds what serves the stream.

        Raises:
            KumaError: the reason for which it was ended meanwhile.
        """
        try:
            async with self._scope:
                yield
        except TimeoutError:
            if self._end is None:  # of a limit within
                raise
            raise self._end from None
