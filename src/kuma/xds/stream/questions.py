"""Questions that control planes over one store ask each other, at the port of discovery.

What is asked and answered are bytes here: who may ask, and that nobody else reads it, is the business of whoever seals
them. The connection is one between control planes whose certificates are of one CA, as for the health of the store.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

from kuma.base.clock import Clock
from kuma.base.errors import AccessDenied, KumaError, Unavailable
from kuma.base.values.rate_limit import Buckets, Rate
from kuma.xds.bootstrap.server_names import ServerNames
from kuma.xds.stream import stream_limits
from kuma.xds.stream.calls import StreamAdmission, check_size, status_of
from kuma.xds.stream.stream_limits import TooMany

Answer = Callable[[bytes], Awaitable[bytes]]
"""What was asked -> the answer. Raises `KumaError` if whoever asks gets none."""
_SERVICE, _METHOD = "kuma.ControlPlanes", "Ask"
_ASKED = Rate(5, 50)
"""Questions of one address: each is looked at with a key that is read from the store."""
_SECONDS = 5.0
"""How long another control plane may take to answer."""


class Questions:
    """Answers other control planes."""

    def __init__(self, answer: Answer, admission: StreamAdmission, clock: Clock) -> None:
        self._answer = answer
        self._admission = admission
        self._clock = clock
        self._asked = Buckets(_ASKED)

    @property
    def handler(self) -> Any:
        """The service, for a gRPC server."""
        method = grpc.unary_unary_rpc_method_handler(self.ask, request_deserializer=None, response_serializer=None)
        return grpc.method_handlers_generic_handler(_SERVICE, {_METHOD: method})

    async def ask(self, question: bytes, context: Any) -> bytes:
        """Answers one question; whether it is one of a control plane is known when it has been looked at."""
        peer = self._admission.front.peer(context.peer())
        address = stream_limits.address_of(peer)
        try:
            if self._asked.take(stream_limits.holder_of(peer), self._clock.now()):
                raise TooMany("too many questions from this address; try again later")
            with self._admission.limiter.pending(peer):
                return await self._answer(check_size(question))
        except KumaError as error:
            if isinstance(error, AccessDenied):
                self._admission.refusals.record(address, server="questions", reason=str(error))
            await context.abort(status_of(error), str(error))
        return b""


async def ask(address: str, names: ServerNames, question: bytes) -> bytes:
    """Asks the control plane at an address; `names` are those of our own certificate, by which the others are known.

    Raises:
        Unavailable: it does not answer, or refuses to.
    """
    async with channel(address, names) as found:
        try:
            answer: bytes = await found.unary_unary(f"/{_SERVICE}/{_METHOD}", None, None)(question, timeout=_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise Unavailable(f"it does not answer: {error.details() or error.code().name}") from None
    return answer


def channel(address: str, names: ServerNames) -> grpc.aio.Channel:
    """Makes a connection to another control plane, which has to show a certificate of our CA for a name of ours."""
    options = [("grpc.ssl_target_name_override", name) for name in names.names[:1]]
    return grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(names.ca_pem), options=options)
