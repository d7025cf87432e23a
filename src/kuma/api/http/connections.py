"""Connections of HTTP clients, each with limits of time and size, so that slow or greedy ones hold up nobody else."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from kuma.api.http import access_control, errors
from kuma.api.http.client_certificates import ClientCertificates
from kuma.api.http.errors import Problem
from kuma.api.http.slices import Slices
from kuma.base.values import addresses


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Limits of one server. Times are in seconds."""

    per_address: int = 128
    total: int = 1000
    handshake: float = 10
    head: float = 10
    idle: float = 15
    send: float = 30
    head_bytes: int = 16 * 1024
    url_bytes: int = 8 * 1024


_RESERVED = 20
"""One in so many connections is for callers on this machine."""
_SHARE = 4
"""One address may have at most one in so many of the connections that are left, and `_ALWAYS`: a browser has six."""
_ALWAYS = 8

_SMALL = 512
"""Bytes: what comes in smaller pieces costs more to take in than it is worth."""
_PIECES = 16
"""Small pieces of one request that are taken in as they come."""
_PAUSE = 0.5
"""Seconds for which further ones are kept, to be taken in together."""
_SLICE = 8 * 1024
"""Bytes that are taken in at a time: they may be thousands of chunks."""
_END_OF_HEAD = re.compile(rb"\n\r?\n")

_MOST_KEPT = 64 * 1024
"""Bytes that have come and are not taken in; until then no more are read."""


class Open:
    """The connections that are open, by whose address the client has (see `addresses.holder`).

    A few addresses do not take them all: the fewer are left, the fewer of these one address may have. Some are for
    callers on this machine only, so that an administrator gets in whoever else does.
    """

    def __init__(self, limits: ConnectionLimits) -> None:
        self._limits = limits
        self._reserved = limits.total // _RESERVED
        self._by_holder = Counter[str]()
        self._local = 0

    def admit(self, address: str) -> Problem | None:
        """Count one more, or say why it is one too many."""
        holder, is_local = addresses.holder(address), addresses.is_loopback(address)
        mine = self._by_holder[holder]
        if mine >= self._limits.per_address:
            what = f"more than {self._limits.per_address} connections at once from one address"
            return Problem(429, "Too Many Requests", what)
        left = self._limits.total - self._by_holder.total() - (0 if is_local else max(0, self._reserved - self._local))
        if left <= 0:
            return Problem(503, "Service unavailable", f"more than {self._limits.total} connections at once")
        if mine >= max(_ALWAYS, left // _SHARE):
            what = f"{left} connections are left, and this address has {mine} already; try again later"
            return Problem(503, "Service unavailable", what)
        self._by_holder[holder] += 1
        self._local += is_local
        return None

    def release(self, address: str) -> None:
        """One that was admitted has ended."""
        holder = addresses.holder(address)
        self._by_holder[holder] -= 1
        self._local -= addresses.is_loopback(address)
        if not self._by_holder[holder]:
            del self._by_holder[holder]


def refusal(problem: Problem) -> bytes:
    """Returns a whole answer for a connection that is not served."""
    content = _content(problem)
    lines = (f"HTTP/1.1 {problem.status} {problem.title}", *(f"{name}: {value}" for name, value in _headers(content)))
    return "\r\n".join((*lines, "", "")).encode() + content


def _content(problem: Problem) -> bytes:
    return bytes(errors.answer(problem, problem.title).body)


def _headers(content: bytes) -> tuple[tuple[str, str], ...]:
    return ("content-type", "application/json"), ("content-length", str(len(content))), ("connection", "close")


class Connection(H11Protocol):
    """uvicorn's, with deadlines; `release` is called when it has ended.

    `user` is whose process is at its other end, if that is on this machine and known.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        state: ServerState,
        limits: ConnectionLimits,
        slices: Slices,
        release: Callable[[], None],
        clients: ClientCertificates | None = None,
        user: int | None = None,
    ) -> None:
        super().__init__(config, state, {access_control.LOCAL_USER: user})
        self._limits = limits
        self._slices = slices
        self._following = object()
        """Stands in `slices` for the next of several requests that have come at once."""
        self._release = release
        self._clients = clients
        self._peer: Any = None
        self.timeout_keep_alive = limits.idle  # type: ignore[assignment]  # uvicorn hands it to `call_later`
        self._head: asyncio.TimerHandle | None = None
        self._send: asyncio.TimerHandle | None = None
        self._kept = bytearray()
        self._flush: asyncio.TimerHandle | None = None
        self._pieces: tuple[Any, int] = (None, 0)
        """The request, and how many small pieces of it have come."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._peer = transport.get_extra_info("peercert")
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head, self._send = _cancelled(self._head), _cancelled(self._send)
        self._flush = _cancelled(self._flush)
        self._slices.drop(self)
        self._slices.drop(self._following)
        self._release()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        problem = self._clients.refusal(self._peer) if self._clients is not None else None
        if problem is not None:  # what it says is not even read
            self._turn_away(problem)
            return
        self._kept += data
        if len(self._kept) > _MOST_KEPT:
            self.transport.pause_reading()
        if self in self._slices:
            return  # it is taken in with the rest
        if len(self._kept) < _SLICE and self._is_one_of_many(data):
            self._flush = self._flush or self.loop.call_later(_PAUSE, self._take_in)
        elif self._is_answering():
            self._slices.add(self, self._take_in)
        else:
            head = _END_OF_HEAD.search(self._kept, 0, _SLICE)
            self._take_in(head.end() if head is not None else _SLICE)

    def _is_one_of_many(self, data: bytes) -> bool:
        """Counts small pieces, request by request."""
        if len(data) >= _SMALL:
            return False
        request, count = self._pieces
        self._pieces = (self.cycle, count + 1 if request is self.cycle else 1)
        return self._pieces[1] > _PIECES

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _take_in(self, size: int = _SLICE) -> None:
        """Takes in what has come, a slice at a time."""
        self._flush = _cancelled(self._flush)
        some = bytes(self._kept[:size])
        del self._kept[:size]
        super().data_received(some)
        self._watch_head()
        if self.transport.is_closing():
            return
        if self._kept:
            self._slices.add(self, self._take_in)
        elif not self.flow.read_paused:
            self.transport.resume_reading()

    def eof_received(self) -> None:
        """Ends the connection; of whoever does not wait for an answer no more than a slice is looked at."""
        if self._kept and not self.transport.is_closing():
            self._take_in()
        super().eof_received()

    def on_response_complete(self) -> None:
        """Goes on with the next request, in its turn if it has come already."""
        if self.conn.trailing_data[0]:
            self._slices.add(self._following, super().on_response_complete)
        else:
            super().on_response_complete()

    def _turn_away(self, problem: Problem) -> None:
        if self._clients is not None and not self.transport.is_closing():
            self._clients.on_refusal(self.client[0] if self.client else "", problem.detail)
            self._refuse(problem)

    def _watch_head(self) -> None:
        """Bounds the time in which a request that has begun, or is to begin, shows its whole head."""
        if self._is_answering():
            self._head = _cancelled(self._head)
        elif self._head is None and not self.transport.is_closing():
            self._head = self.loop.call_later(self._limits.head, self._too_slow)

    def _too_slow(self) -> None:
        if self.conn.trailing_data[0]:
            self._refuse(Problem(408, "Request Timeout", "the head of the request did not come in time"))
        else:
            self.transport.close()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._send = self._send or self.loop.call_later(self._limits.send, self.transport.abort)

    def resume_writing(self) -> None:
        self._send = _cancelled(self._send)
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """uvicorn has given up on what was sent."""
        head = self.conn.trailing_data[0]
        if len(head) <= self._limits.head_bytes:
            self._refuse(Problem(400, "Bad Request", "this is not HTTP/1.1"))
        else:
            self._refuse(_too_long_url(self._limits) if b"\n" not in head else _too_long_head(self._limits))

    def _refuse(self, problem: Problem) -> None:
        if self.cycle is not None:  # whatever is answered to its request is heard by nobody any more
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        content = _content(problem)
        events = (
            h11.Response(status_code=problem.status, headers=list(_headers(content)), reason=problem.title),
            h11.Data(data=content),
            h11.EndOfMessage(),
        )
        try:
            for event in events:
                self.transport.write(self.conn.send(event) or b"")
        except h11.LocalProtocolError:
            pass  # another answer is on its way; it is cut off
        self.transport.close()


def _cancelled(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    if timer is not None:
        timer.cancel()
    return None


def _too_long_url(limits: ConnectionLimits) -> Problem:
    return Problem(414, "URI Too Long", f"the URL is longer than {limits.url_bytes} bytes")


def _too_long_head(limits: ConnectionLimits) -> Problem:
    what = f"the head of the request is longer than {limits.head_bytes} bytes"
    return Problem(431, "Request Header Fields Too Large", what)


def with_sound_heads(app: Any, limits: ConnectionLimits) -> Any:
    """`app`, asked only by requests whose URL and head are short enough, and which say one length of their body.

    One segment may bring a very long head. Whoever says two lengths means the rest of one for another request, past a
    proxy that has judged the first: nothing more of such a connection is read (RFC 9112 §6.1, §11.2).
    """

    async def limited(scope: Any, receive: Any, send: Any) -> None:
        found = _unsound(scope, limits) if scope["type"] == "http" else None
        if found is None:
            await app(scope, receive, send)
            return
        answer = errors.answer(found, found.title)
        answer.headers["connection"] = "close"
        await answer(scope, receive, send)

    return limited


def _unsound(scope: Any, limits: ConnectionLimits) -> Problem | None:
    url = len(scope["raw_path"]) + len(scope["query_string"])
    if url > limits.url_bytes:
        return _too_long_url(limits)
    if url + sum(len(name) + len(value) + 4 for name, value in scope["headers"]) > limits.head_bytes:
        return _too_long_head(limits)
    names = {name for name, _ in scope["headers"]}
    if {b"transfer-encoding", b"content-length"} <= names:
        return Problem(400, "Bad Request", "the length of the body is said by Transfer-Encoding and Content-Length")
    return None


def that_may_end(app: Any, ends: Callable[[], bool]) -> Any:
    """`app`, whose answers tell clients that the connection ends with them while it `ends`."""

    async def told(scope: Any, receive: Any, send: Any) -> None:
        async def tell(message: Any) -> None:
            if message["type"] == "http.response.start" and ends():
                message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
            await send(message)

        await app(scope, receive, tell)

    return told


def told_of_the_end(app: Any) -> Any:
    """`app`, whose requests that are cut off because the server stops are answered so, if no answer has begun."""

    async def answered(scope: Any, receive: Any, send: Any) -> None:
        has_begun = False

        async def pass_on(message: Any) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await app(scope, receive, pass_on)
        except asyncio.CancelledError:  # by nobody else than the server, which waits no longer
            if has_begun:
                raise
            answer = errors.answer(Problem(503, "Service unavailable", _STOPPING), "")
            answer.headers["connection"] = "close"
            await answer(scope, receive, send)

    return answered


_STOPPING = "the control plane is stopping; a change may have been made or not: look whether it was, and try again"
