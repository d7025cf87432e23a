"""Connections of HTTP clients, each with limits of time and size, so that slow or greedy ones hold up nobody else."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from kuma.api.http import callers, errors
from kuma.api.http.client_certificates import ClientCertificates
from kuma.api.http.errors import Problem


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


class Open:
    """The connections that are open, by the address of the client."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self._limits = limits
        self._by_address = Counter[str]()

    def admit(self, address: str) -> Problem | None:
        """Count one more, or say why it is one too many."""
        if self._by_address[address] >= self._limits.per_address:
            what = f"more than {self._limits.per_address} connections at once from one address"
            return Problem(429, "Too Many Requests", what)
        if self._by_address.total() >= self._limits.total:
            return Problem(503, "Service unavailable", f"more than {self._limits.total} connections at once")
        self._by_address[address] += 1
        return None

    def release(self, address: str) -> None:
        """Counts one connection less."""
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]


def refusal(problem: Problem) -> bytes:
    """A whole answer for a connection that is not served."""
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
        release: Callable[[], None],
        clients: ClientCertificates | None = None,
        user: int | None = None,
    ) -> None:
        super().__init__(config, state, {callers.LOCAL_USER: user})
        self._limits = limits
        self._release = release
        self._clients = clients
        self._peer: Any = None
        self.timeout_keep_alive = limits.idle  # type: ignore[assignment]  # uvicorn hands it to `call_later`
        self._head: asyncio.TimerHandle | None = None
        self._send: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._peer = transport.get_extra_info("peercert")
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head, self._send = _cancelled(self._head), _cancelled(self._send)
        self._release()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        problem = self._clients.refusal(self._peer) if self._clients is not None else None
        if problem is not None:  # what it says is not even read
            self._turn_away(problem)
            return
        super().data_received(data)
        self._watch_head()

    def _turn_away(self, problem: Problem) -> None:
        if self._clients is not None and not self.transport.is_closing():
            self._clients.on_refusal(self.client[0] if self.client else "", problem.detail)
            self._refuse(problem)

    def _watch_head(self) -> None:
        """A request that has begun, or is to begin, has to show its whole head before long."""
        if self.cycle is not None and not self.cycle.response_complete:
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


def with_short_heads(app: Any, limits: ConnectionLimits) -> Any:
    """`app`, asked only by requests whose URL and head are short enough: one segment may bring a very long one."""

    async def limited(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            url = len(scope["raw_path"]) + len(scope["query_string"])
            whole = url + sum(len(name) + len(value) + 4 for name, value in scope["headers"])
            found = _too_long_url if url > limits.url_bytes else _too_long_head if whole > limits.head_bytes else None
            if found is not None:
                await errors.answer(found(limits), "")(scope, receive, send)
                return
        await app(scope, receive, send)

    return limited
